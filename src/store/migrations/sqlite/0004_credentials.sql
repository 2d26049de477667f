-- Private keys of holders are read for each answer and stored nowhere. Until now each lease held one. `open::erase` has
-- taken their bytes out of the file before this runs.
UPDATE leases SET access = json_remove(access, '$.private_key') WHERE access LIKE '%"private_key"%';
UPDATE resources SET access = json_remove(access, '$.private_key') WHERE access LIKE '%"private_key"%';

PRAGMA user_version = 4;
