//! drain-svc
