-- How the principal of an entry proved who it is, from where it called, and what allowed it. Entries of before have none.

ALTER TABLE events ADD COLUMN caller TEXT; -- {"tenant": …, "proof": …, "peer": …, "via": …, "roles": …, "method": …}

PRAGMA user_version = 9;
