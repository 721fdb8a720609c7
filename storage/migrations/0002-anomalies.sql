-- What detectors found. The id follows from series, instant and detector, so that a finding that is made again after a crash is the same row.
CREATE TABLE IF NOT EXISTS weir.anomalies
(
    tenant LowCardinality(String) CODEC(ZSTD(1)),
    device LowCardinality(String) CODEC(ZSTD(1)),
    metric LowCardinality(String) CODEC(ZSTD(1)),
    observedAt DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    receivedAt DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    id String CODEC(ZSTD(1)),
    detector LowCardinality(String) CODEC(ZSTD(1)),
    score Float64 CODEC(ZSTD(1)),
    value Float64 CODEC(ZSTD(1)),
    expectedLow Float64 CODEC(ZSTD(1)),
    expectedHigh Float64 CODEC(ZSTD(1)),
    explanation String CODEC(ZSTD(1)),
    evidence String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(receivedAt)
PARTITION BY if(observedAt < toDateTime64('2020-01-01 00:00:00', 6, 'UTC'), 0, toYYYYMM(observedAt))
ORDER BY (tenant, observedAt, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0;
