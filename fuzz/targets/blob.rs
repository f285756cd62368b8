#![no_main]
shock_absorber_fuzz::target!(event_log::embedded::laws::blob);
