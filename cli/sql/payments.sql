-- The example table. Plain SQL that SQLite, MariaDB and MySQL all take.
CREATE TABLE IF NOT EXISTS payments (
    id              VARCHAR(36)    NOT NULL PRIMARY KEY,
    amount          DECIMAL(18, 2) NOT NULL,
    currency        CHAR(3)        NOT NULL,
    payer_upi       VARCHAR(255)   NOT NULL,
    payee_upi       VARCHAR(255)   NOT NULL,
    tenant          VARCHAR(64)    NOT NULL,
    customer        VARCHAR(64)    NOT NULL,
    leg             VARCHAR(16)    NOT NULL,
    action          VARCHAR(16)    NOT NULL,
    status          VARCHAR(24)    NOT NULL DEFAULT 'INITIATED',
    error_code      VARCHAR(32),
    error_message   VARCHAR(255),
    payer           JSON,
    payees          JSON,
    meta            JSON,
    resp_meta       JSON,
    convenience_fee DECIMAL(18, 2) NOT NULL DEFAULT 0.00,
    created_at      DATETIME(6)    NOT NULL,
    updated_at      DATETIME(6)    NOT NULL
);
