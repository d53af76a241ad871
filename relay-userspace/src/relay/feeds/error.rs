//! Why a feed could not be fetched: sentences for whoever reads its status.

use std::{io, net::IpAddr, time::Duration};

use thiserror::Error;

use crate::{dns::DnsError, tls::TlsError};

/// None of these shows more of an address than its host: the rest may hold a customer's key.
#[derive(Debug, Error)]
pub enum FetchError {
    #[error("its address cannot be asked: {0}")]
    Address(String),
    #[error("{host}: its address could not be looked up: {error}")]
    Lookup { host: String, error: DnsError },
    #[error("{host}: it has no address")]
    NoAddress { host: String },
    /// The reasons of all addresses that were tried.
    #[error("{}", .0.join("; "))]
    Unreachable(Vec<String>),
    #[error("{from} redirects: {why}")]
    Redirect { from: String, why: String },
    #[error("it redirects to {to} at {address}, which is no address of the public internet")]
    Inside { to: String, address: IpAddr },
    #[error("it redirects more than {0} times")]
    Redirects(usize),
    #[error("{host}: no answer within {} s", .after.as_secs())]
    Silent { host: String, after: Duration },
    #[error("{host}: {error}")]
    Http { host: String, error: String },
    #[error("{host} answered {status}")]
    Status { host: String, status: hyper::StatusCode },
    /// 429 or 503 (RFC 6585, section 4; RFC 9110, section 15.6.4).
    #[error("{host} answered {status}{}", later(*.retry_after))]
    Busy { host: String, status: hyper::StatusCode, retry_after: Option<Duration> },
    #[error("its server wants to be left alone for another {} s", .left.as_secs())]
    LeftAlone { left: Duration },
    #[error("{host} sent it as {coding}, which was not asked for")]
    Coded { host: String, coding: String },
    #[error("it is larger than max_size, {max} octets")]
    TooLarge { max: u64 },
    #[error("it was cut off after {got}{} octets: {why}", .of.map(|of| format!(" of {of}")).unwrap_or_default())]
    CutOff { got: u64, of: Option<u64>, why: String },
    #[error("it came too slowly: {got} octets in {} s", .after.as_secs())]
    Slow { got: u64, after: Duration },
    #[error("it cannot be kept: {0}")]
    Disk(#[source] io::Error),
    #[error(transparent)]
    Trust(#[from] TlsError),
}

fn later(after: Option<Duration>) -> String {
    after.map(|after| format!(", to be asked again in {} s", after.as_secs())).unwrap_or_default()
}
