-- Which dead letters were put back, when, and what became of them; the last time counts.
CREATE TABLE IF NOT EXISTS weir.dead_letters_put_back
(
    tenant LowCardinality(String) CODEC(ZSTD(1)),
    device LowCardinality(String) CODEC(ZSTD(1)),
    id String CODEC(ZSTD(1)),
    putBackAt DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    accepted UInt32 CODEC(ZSTD(1)),
    deadLettered UInt32 CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(putBackAt)
ORDER BY (tenant, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;
