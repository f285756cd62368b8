//! On Redis.
