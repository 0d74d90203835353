// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sustained transfer both ways over network interfaces, with checksums.
//!
//! The other end is an HTTP server. What it returns for `GET /` is hashed and held against its header `X-SHA256`,
//! or, without one, against what it returned at first. What is sent it by `POST /` it answers with the SHA-256
//! of it on a line, in hexadecimal.

pub mod http;
pub mod interface;
pub mod worker;
