-- Tenants: the longest life of a lease, and whose a resource was.
ALTER TABLE leases ADD COLUMN total_ms INTEGER; -- longest life from when it is active
ALTER TABLE leases ADD COLUMN expires_at_most INTEGER; -- no renewal goes beyond it
ALTER TABLE resources ADD COLUMN last_tenant TEXT; -- tenant of its latest lease, where that matters to the next one
ALTER TABLE resources ADD COLUMN held_for TEXT; -- tenant at whose request it is kept

PRAGMA user_version = 8;
