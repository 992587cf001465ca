-- The store of seckill on MariaDB (10.6 or newer) and MySQL (8.0.29 or newer).
-- `seckill init --store-url mysql://user:password@host:port/database` applies this file; it may be
-- applied again and then changes nothing. Every statement runs on both servers as it stands.
--
-- Ids compare byte by byte (utf8mb4_bin). That collation ignores spaces at the end, which no id has:
-- the engine refuses them at the door.

CREATE TABLE IF NOT EXISTS meta (
    name  VARCHAR(64) NOT NULL,
    value TEXT        NOT NULL,
    PRIMARY KEY (name)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The fence: a writer whose epoch is not the stored one updates no row here and writes nothing
-- (Fenced). `position` counts the commits of the partition and settles a COMMIT in doubt.
CREATE TABLE IF NOT EXISTS partitions (
    partition_id INT    NOT NULL,
    epoch        BIGINT NOT NULL,
    position     BIGINT NOT NULL,
    -- Who acquired it last: only they may take it back after a broken connection.
    owner        VARCHAR(64) NOT NULL,
    -- In a cluster, how far the commands that came over the broker are decided, as JSON: the stream's
    -- life, the sequence up to which all are, and ranges of later ones.
    source       TEXT   NOT NULL,
    -- Of several databases, the name of the one where this partition lives: nobody acquires it in
    -- another. Empty where there is one. While it is moved: '>TARGET' in the one that it leaves,
    -- '<SOURCE TOKEN' in the one that receives it.
    place        VARCHAR(64) NOT NULL DEFAULT '',
    PRIMARY KEY (partition_id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row is one commit: what one batch did to one aggregate, its events as a JSON array. One row a
-- batch, not one an event, is what makes a group commit cheap. LONGTEXT and not JSON: MySQL would
-- store it reordered, and the checksum (crc32c) is of these very bytes.
CREATE TABLE IF NOT EXISTS commits (
    partition_id    INT         NOT NULL,
    position        BIGINT      NOT NULL,
    aggregate_type  VARCHAR(64) NOT NULL,
    aggregate_id    VARCHAR(64) NOT NULL,
    first_version   BIGINT      NOT NULL,
    last_version    BIGINT      NOT NULL,
    checksum        BIGINT      NOT NULL,
    committed_at_us BIGINT      NOT NULL,
    events          LONGTEXT    NOT NULL,
    -- Error 1062 on it: another writer appended to this partition (Fenced).
    PRIMARY KEY (partition_id, position),
    -- Error 1062 on it: the stream is not at the version the writer thought (WrongExpectedVersion).
    CONSTRAINT commits_by_stream UNIQUE (aggregate_type, aggregate_id, first_version),
    -- Error 4025 (MariaDB) or 3819 (MySQL): a defect of the program; nothing is written.
    CONSTRAINT commits_versions CHECK (1 <= first_version AND first_version <= last_version)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Error 1644 (SQLSTATE 45000): history is appended to and never rewritten.
CREATE TRIGGER IF NOT EXISTS commits_never_updated BEFORE UPDATE ON commits FOR EACH ROW
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'commits are append-only: no update';

CREATE TRIGGER IF NOT EXISTS commits_never_deleted BEFORE DELETE ON commits FOR EACH ROW
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'commits are append-only: no delete';

-- Every event as a row, for people: SELECT * FROM events WHERE sku = 'PHONE' AND buyer = 'alice'.
CREATE OR REPLACE VIEW events AS
SELECT c.partition_id,
       c.position,
       c.aggregate_type,
       c.aggregate_id AS sku,
       c.first_version + e.n - 1 AS version,
       e.command_id,
       e.type,
       e.buyer,
       e.quantity,
       FROM_UNIXTIME(c.committed_at_us / 1000000) AS committed_at
FROM commits AS c
JOIN JSON_TABLE(c.events, '$[*]' COLUMNS (
    n          FOR ORDINALITY,
    command_id VARCHAR(64) CHARACTER SET utf8mb4 PATH '$.command_id',
    type       VARCHAR(64) CHARACTER SET utf8mb4 PATH '$.type',
    buyer      VARCHAR(64) CHARACTER SET utf8mb4 PATH '$.buyer',
    quantity   BIGINT      PATH '$.quantity'
)) AS e;

-- Only saves time at start; a snapshot is checked when it is read and ignored when it does not fit.
CREATE TABLE IF NOT EXISTS snapshots (
    aggregate_type VARCHAR(64) NOT NULL,
    aggregate_id   VARCHAR(64) NOT NULL,
    version        BIGINT      NOT NULL,
    code_version   BIGINT      NOT NULL,
    checksum       BIGINT      NOT NULL,
    state          LONGBLOB    NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What a snapshot consists of, in pieces that each fit into one packet (max_allowed_packet).
CREATE TABLE IF NOT EXISTS snapshot_parts (
    aggregate_type VARCHAR(64) NOT NULL,
    aggregate_id   VARCHAR(64) NOT NULL,
    number         BIGINT      NOT NULL,
    data           LONGBLOB    NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id, number)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What a batch changes with ONE guarded UPDATE a SKU. No row changed, or a number below zero (error
-- 4025 or 3819): the row differs from its events, and that SKU is stopped (ProjectionDiverged).
CREATE TABLE IF NOT EXISTS stock (
    sku             VARCHAR(64) NOT NULL,
    available       BIGINT      NOT NULL,
    reserved        BIGINT      NOT NULL,
    paid            BIGINT      NOT NULL,
    limit_per_buyer BIGINT      NOT NULL,
    hold_seconds    BIGINT      NOT NULL,
    version         BIGINT      NOT NULL,
    phase           VARCHAR(64) NOT NULL,
    PRIMARY KEY (sku),
    CONSTRAINT stock_available_not_below_zero CHECK (available >= 0),
    CONSTRAINT stock_reserved_not_below_zero CHECK (reserved >= 0),
    CONSTRAINT stock_paid_not_below_zero CHECK (paid >= 0),
    CONSTRAINT stock_limit_per_buyer_not_below_zero CHECK (limit_per_buyer >= 0),
    CONSTRAINT stock_hold_seconds_not_below_zero CHECK (hold_seconds >= 0),
    CONSTRAINT stock_version_not_below_zero CHECK (version >= 0)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Read models (`orders`, `sales`): tables named <table>_g<generation>, read through a view of the
-- table's own name. A rebuild fills a younger generation beside the live one.
CREATE TABLE IF NOT EXISTS projections (
    name       VARCHAR(64) NOT NULL,
    generation INT         NOT NULL,
    live       TINYINT     NOT NULL,
    shape      TEXT        NOT NULL,
    PRIMARY KEY (name, generation)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- How far each is in the commits of each partition: changed in the transaction of its rows, and
-- only from the expected value, so that two projectors never count an event twice.
CREATE TABLE IF NOT EXISTS checkpoints (
    projection   VARCHAR(64) NOT NULL,
    generation   INT         NOT NULL,
    partition_id INT         NOT NULL,
    position     BIGINT      NOT NULL,
    revision     BIGINT      NOT NULL,
    PRIMARY KEY (projection, generation, partition_id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Commits that a projection or process manager could not take in, with what follows in their stream.
CREATE TABLE IF NOT EXISTS dead_letters (
    projection     VARCHAR(64) NOT NULL,
    generation     INT         NOT NULL,
    partition_id   INT         NOT NULL,
    position       BIGINT      NOT NULL,
    aggregate_type VARCHAR(64) NOT NULL,
    aggregate_id   VARCHAR(64) NOT NULL,
    reason         TEXT        NOT NULL,
    PRIMARY KEY (projection, generation, partition_id, position)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
