-- Where a reading's chunk lies in its partition of the log. Written where several processes append to one partition, each with a clock of its own, so
-- that receivedAt does not tell the log's order; -1: not known.
ALTER TABLE weir.readings ADD COLUMN IF NOT EXISTS logOffset Int64 DEFAULT -1 CODEC(Delta, ZSTD(1));
