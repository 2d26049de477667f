-- Losses one soon after the other: of a machine, and of a pool that makes its hosts at will.
ALTER TABLE machines ADD COLUMN losses TEXT; -- {"count": …, "since": ms, "last": ms, "again_at": ms, "why": …}
ALTER TABLE pools ADD COLUMN losses TEXT;

PRAGMA user_version = 11;
