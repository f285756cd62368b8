//! The composition root of the ingest service.
