//! Multiparty BFV and linear layers on ciphertexts.
