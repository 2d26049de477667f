-- Private keys of holders are read for each answer and stored nowhere. Until now each lease held one. `migrate` then writes
-- the tables anew, since an updated row leaves its former self behind.
UPDATE leases SET access = (access::jsonb - 'private_key')::text WHERE access LIKE '%"private_key"%';
UPDATE resources SET access = (access::jsonb - 'private_key')::text WHERE access LIKE '%"private_key"%';
