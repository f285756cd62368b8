#![no_main]
shock_absorber_fuzz::target!(ingest_svc::laws::token);
