//! Files that are renamed while they are looked at: a look is made again until it has seen names that stood still.

use std::{io, thread::sleep, time::Duration};

use rustix::io::Errno;

/// How often names are looked at that change meanwhile.
const LOOKS_MAX: u32 = 50;
/// Wait before the next such look.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Looks again when names have changed under our eyes. A look that fails must leave nothing changed.
pub(super) fn steady<T>(mut look: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..LOOKS_MAX {
        match look() {
            Err(error) if is_renamed(&error) || is_absent(&error) => sleep(LOOK_AGAIN),
            looked => return looked,
        }
    }
    look()
}

/// Lists twice: who is moved from behind the place of a listing to before it would be missed. An error as `is_renamed` knows it when
/// both differ.
pub(super) fn list_twice<T>(
    list: impl Fn() -> io::Result<Vec<T>>,
    is_same: impl Fn(&T, &T) -> bool,
) -> io::Result<Vec<T>> {
    let (found, again) = (list()?, list()?);
    let stood_still = found.len() == again.len() && found.iter().zip(&again).all(|(one, other)| is_same(one, other));
    if stood_still { Ok(again) } else { Err(renamed()) }
}

/// What was listed under a name is not what has it now.
pub(super) fn renamed() -> io::Error {
    io::Error::new(io::ErrorKind::StaleNetworkFileHandle, "files were renamed while they were looked at")
}

/// Whether names have changed since they were listed.
pub(super) fn is_renamed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StaleNetworkFileHandle
}

/// Whether there is nothing of that name. A loop of symbolic links leads to nothing.
pub(super) fn is_absent(error: &io::Error) -> bool {
    let absent = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::NXIO];
    error.raw_os_error().is_some_and(|code| absent.iter().any(|errno| errno.raw_os_error() == code))
}
