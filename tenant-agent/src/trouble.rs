//! What is wrong with a connection to the control plane, in words that say what to do.

use std::error::Error;
use std::io;

use bmi_types::{Timestamp, chain};
use rustls::{AlertDescription, CertificateError};

/// A clock that is off by more than this is told, in seconds: certificates and timelines depend on it.
const CLOCK_OFF_S: i64 = 30;

/// The fault of TLS that an error comes from.
fn tls_fault<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An I/O error does not show what it wraps as its source, but the source of that.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = wrapped.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(found);
        }
        next = match wrapped {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// Whether an error may come from a clock that is off.
#[must_use]
pub fn is_about_time(error: &(dyn Error + 'static)) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(
        tls_fault(error),
        Some(
            rustls::Error::InvalidCertificate(
                Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }
            ) | rustls::Error::AlertReceived(AlertDescription::CertificateExpired)
        )
    )
}

/// What an error means for whoever looks after this host.
#[must_use]
pub fn explain(error: &(dyn Error + 'static)) -> String {
    use CertificateError::{NotValidForName, NotValidForNameContext, UnknownIssuer};
    let meaning = match tls_fault(error) {
        _ if is_about_time(error) => {
            "a certificate is not valid at this time: is this host's clock right, or was the agent off for longer than \
             its certificate lasts?"
        }
        Some(rustls::Error::InvalidCertificate(UnknownIssuer)) => {
            "its certificate is of an authority that this agent does not trust: another control plane, or somebody in \
             between"
        }
        Some(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
            "its certificate is for other names than the one dialled: see `names` in its [agents]"
        }
        Some(rustls::Error::AlertReceived(
            AlertDescription::UnknownCA | AlertDescription::BadCertificate | AlertDescription::DecryptError,
        )) => "it does not take this agent's certificate: its authority is not trusted there any more",
        _ => return chain(error),
    };
    format!("{meaning} ({})", chain(error))
}

/// The time to go by: the control plane's, where this host's clock is off.
#[must_use]
pub fn right_time(here: Timestamp, there: Option<Timestamp>) -> Timestamp {
    there.filter(|there| clock_off(here, *there).is_some()).unwrap_or(here)
}

/// What to say of a clock that is off; nothing when it is right.
#[must_use]
pub fn clock_off(here: Timestamp, there: Timestamp) -> Option<String> {
    let behind = (there.micros() - here.micros()) / 1_000_000;
    if behind.abs() <= CLOCK_OFF_S {
        return None;
    }
    let way = if behind > 0 { "behind" } else { "ahead of" };
    Some(format!(
        "this host's clock is {} s {way} the control plane's: {here} here, {there} there; set it",
        behind.abs()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_plane_s_time_counts_where_the_clock_is_off() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        assert_eq!(right_time(at(1_000), Some(at(1_002))), at(1_000));
        assert_eq!(right_time(at(30_000), Some(at(1_000))), at(1_000));
        assert_eq!(right_time(at(1_000), None), at(1_000));
    }

    #[derive(Debug, thiserror::Error)]
    #[error("connecting")]
    struct Outer(#[source] io::Error);

    fn outer(error: rustls::Error) -> Outer {
        Outer(io::Error::other(error))
    }

    #[test]
    fn a_fault_of_tls_is_found_wherever_it_is_wrapped() {
        let expired = outer(rustls::Error::InvalidCertificate(CertificateError::NotValidYet));
        assert!(is_about_time(&expired) && explain(&expired).contains("clock"));
        let twice = Outer(io::Error::other(outer(rustls::Error::AlertReceived(AlertDescription::UnknownCA))));
        assert!(!is_about_time(&twice) && explain(&twice).contains("not trusted there"));
        let unknown = outer(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        assert!(explain(&unknown).contains("does not trust"));
        let other = Outer(io::Error::other("refused"));
        assert_eq!(explain(&other), chain(&other));
    }

    #[test]
    fn a_clock_that_is_off_is_told_with_both_times() {
        let here = Timestamp::of_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let there = Timestamp::of_http_date("Sun, 06 Nov 1994 08:59:37 GMT").unwrap();
        let said = clock_off(here, there).unwrap();
        assert!(said.contains("600 s behind") && said.contains("08:49:37") && said.contains("08:59:37"));
        assert!(clock_off(there, here).unwrap().contains("ahead of"));
        assert_eq!(clock_off(here, here), None);
    }
}
