//! SECO client: private neural-network inference from a device, over QUIC.
