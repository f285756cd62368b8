#![no_main]
shock_absorber_fuzz::target!(hot_store::redis::laws::redis_value);
