//! Circuits over a trait and n-party garbling.
