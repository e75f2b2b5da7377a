//! Preprocessing and online phase of one SECO server over a Channel trait.
