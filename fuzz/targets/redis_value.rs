#![no_main]
shock_absorber_fuzz::target!(hot_store::laws::redis_value);
