-- Readings as they were received, one row a reading. Order and version make repeats one row: the same identity (tenant, device, metric,
-- observedAt) again, in whatever batch, is folded, and the newest receivedAt wins. Gorilla is the wrong codec for sensor decimals.
CREATE TABLE IF NOT EXISTS weir.readings
(
    tenant LowCardinality(String) CODEC(ZSTD(1)),
    device LowCardinality(String) CODEC(ZSTD(1)),
    metric LowCardinality(String) CODEC(ZSTD(1)),
    observedAt DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    value Float64 CODEC(ZSTD(1)),
    text String CODEC(ZSTD(1)),
    receivedAt DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(receivedAt)
-- A month each; everything before 2020 in one, so that a device whose clock is wrong, or a batch of hostile instants, makes no hundreds of parts.
PARTITION BY if(observedAt < toDateTime64('2020-01-01 00:00:00', 6, 'UTC'), 0, toYYYYMM(observedAt))
ORDER BY (tenant, device, metric, observedAt)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;

-- What could not be used, with its bytes and cause.
CREATE TABLE IF NOT EXISTS weir.dead_letters
(
    tenant LowCardinality(String) CODEC(ZSTD(1)),
    device LowCardinality(String) CODEC(ZSTD(1)),
    id String CODEC(ZSTD(1)),
    reason LowCardinality(String) CODEC(ZSTD(1)),
    detail String CODEC(ZSTD(1)),
    metric String CODEC(ZSTD(1)),
    codec LowCardinality(String) CODEC(ZSTD(1)),
    origin String CODEC(ZSTD(1)),
    receivedAt DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    payload String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(receivedAt)
ORDER BY (tenant, receivedAt, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;
