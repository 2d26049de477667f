-- The tenant to which a lease belongs. NULL: `default`, as all leases before.
ALTER TABLE leases ADD COLUMN tenant text;
