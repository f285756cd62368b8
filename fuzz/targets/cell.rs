#![no_main]
shock_absorber_fuzz::target!(database::laws::cell);
