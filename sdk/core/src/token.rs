//! Tokens by which a gateway tells who may use it (`server/PROTOCOL.md`, section 3).
//!
//! A token is a name and a secret: 8 bytes that the gateway's operator sees, and 16 that he does not keep, but for
//! their hash. As text it is [`PREFIX`] and 48 hexadecimal digits. It says nothing about the user to any other server,
//! and nothing at all to whoever listens: it travels inside TLS, once for each connection.

use crate::{Error, Result, write_hex};
use core::fmt;
use core::str::FromStr;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What a token's text begins with, so that people, and what searches for secrets, know it.
pub const PREFIX: &str = "seco_";

/// Bytes of a token.
pub const TOKEN_LEN: usize = NAME_LEN + 16;

/// Bytes of its name.
const NAME_LEN: usize = 8;

/// Names a token; no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub [u8; NAME_LEN]);

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// A token. Wiped when it is dropped, and never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Token([u8; TOKEN_LEN]);

impl Token {
    /// From its bytes: random ones make a new token.
    #[must_use]
    pub const fn new(bytes: [u8; TOKEN_LEN]) -> Self {
        Self(bytes)
    }

    /// Reads what a device sent.
    ///
    /// # Errors
    /// [`Error::Malformed`] for another length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        bytes.try_into().map(Self).map_err(|_| Error::Malformed)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> TokenId {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        TokenId([a, b, c, d, e, f, g, h])
    }

    /// All of it, name and secret.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; TOKEN_LEN] {
        &self.0
    }
}

impl FromStr for Token {
    type Err = Error;

    /// Reads a token's text; white space around it does not count.
    ///
    /// # Errors
    /// [`Error::Token`].
    fn from_str(text: &str) -> Result<Self> {
        let digits = text.trim().strip_prefix(PREFIX).ok_or(Error::Token)?.as_bytes();
        let mut token = Self([0; TOKEN_LEN]);
        let (pairs, rest) = digits.as_chunks::<2>();
        if !rest.is_empty() || pairs.len() != TOKEN_LEN {
            return Err(Error::Token);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(Error::Token);
        for (byte, [high, low]) in token.0.iter_mut().zip(pairs) {
            *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokens_text() {
        let token: Token = " seco_000102030405060708090a0b0c0d0e0f1011121314151617\n".parse().unwrap();
        assert_eq!(*token.as_bytes(), core::array::from_fn(|n| n as u8));
        assert_eq!(token.id(), TokenId([0, 1, 2, 3, 4, 5, 6, 7]));
        for wrong in [
            "",
            "seco_",
            "000102030405060708090a0b0c0d0e0f1011121314151617",
            "seco_000102030405060708090a0b0c0d0e0f10111213141516",
            "seco_000102030405060708090a0b0c0d0e0f101112131415161",
            "seco_000102030405060708090a0b0c0d0e0f101112131415161718",
            "seco_00010203040506070809 a0b0c0d0e0f1011121314151617",
            "seco_0001020304050607080\u{e9}0a0b0c0d0e0f101112131415",
        ] {
            assert_eq!(wrong.parse::<Token>().err(), Some(Error::Token), "{wrong}");
        }
        assert!(Token::from_bytes(&[0; TOKEN_LEN - 1]).is_err());
    }
}
