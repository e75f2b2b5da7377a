//! Oblivious transfer: base OT over Ristretto, correlated OT extension, AES kernels.
