//! shock-absorber-client
