#![no_main]
shock_absorber_fuzz::target!(model::laws::json);
