//! File descriptors: as many as the system gives, and no more connections than they are enough for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;

/// Kept for the database's files, for listeners, and for whatever else is not a connection.
const KEPT: u64 = 512;

/// Raises the soft limit to the hard one, and lowers the number of connections to what fits.
pub(crate) fn fit(limits: &mut Limits) {
    let given = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: given.maximum, maximum: given.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => given.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files could not be raised");
            given.current
        }
    };
    // None: there is no limit.
    let Some(files) = files else { return };
    let fit = connections(files, limits.connections);
    if fit < limits.connections {
        tracing::warn!(
            files,
            kept = KEPT,
            configured = limits.connections,
            in_effect = fit,
            "fewer connections than configured are taken, for want of file descriptors: raise LimitNOFILE, or lower [limits] \
             connections"
        );
        limits.connections = fit;
    }
}

/// How many connections fit, of those that are wanted. One always does: the server is to be reached.
fn connections(files: u64, wanted: usize) -> usize {
    usize::try_from(files.saturating_sub(KEPT)).unwrap_or(usize::MAX).clamp(1, wanted.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_other_files() {
        assert_eq!([connections(1_024, 4_096), connections(8_192, 4_096), connections(100, 4_096)], [512, 4_096, 1]);
    }
}
