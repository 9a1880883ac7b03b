//! Whether the spool can be written, and has room.

use std::{fs, io, path::Path};

use rustix::fs::{Access, AtFlags, CWD, accessat, statvfs};
use sigillo_client::spooled::SpoolOptions;

use super::Finding;

/// Looks at the folder, or where it will be made.
pub(super) fn spool(options: &SpoolOptions) -> Vec<Finding> {
    let (name, max) = (options.dir.display(), options.max_bytes);
    let there = options.dir.ancestors().find(|folder| fs::symlink_metadata(folder).is_ok());
    let there = there.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !there.is_dir() {
        return vec![(false, format!("spool {name}: {} is no folder: move it away", there.display()))];
    }
    if let Err(error) = accessat(CWD, there, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        let error = io::Error::from(error);
        return vec![(false, format!("spool {name}: {} can't be written: {error}", there.display()))];
    }
    let disk = match statvfs(there) {
        Ok(disk) => disk,
        Err(error) => return vec![(false, format!("spool {name}: {}", io::Error::from(error)))],
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let has = used(&options.dir);
    let found = format!("spool {name} may grow to {max} bytes, has {has} now, and {free} are free");
    let is_room = free >= max.saturating_sub(has);
    vec![(is_room, if is_room { found } else { format!("{found}: make room, or lower spool.max_bytes") })]
}

/// Bytes of its files.
fn used(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{as_nobody, chmod},
        *,
    };

    #[test]
    fn a_spool_is_writable_and_has_room_or_says_why_not() {
        let dir = tempfile::tempdir().unwrap();
        chmod(dir.path(), 0o755);
        let found = |options: &SpoolOptions| {
            let [(fine, found)] = &spool(options)[..] else { panic!() };
            (*fine, found.clone())
        };
        let options = SpoolOptions::new(dir.path().join("state/spool"));
        let small = SpoolOptions { max_bytes: 16 << 20, ..options.clone() };
        assert!(found(&small).0, "{:?}", found(&small));
        let large = SpoolOptions { max_bytes: 1 << 40, ..options.clone() };
        let (fine, said) = found(&large);
        assert!(!fine && said.contains("make room"), "{said}");
        // What it has is its own already.
        fs::create_dir_all(&large.dir).unwrap();
        fs::File::create(large.dir.join("1")).unwrap().set_len(1 << 40).unwrap();
        assert!(found(&large).0, "{:?}", found(&large));

        chmod(&small.dir, 0o755);
        let (fine, said) = as_nobody(move || found(&small));
        assert!(!fine && said.contains("can't be written"), "{said}");
        fs::remove_dir_all(dir.path().join("state")).unwrap();
        fs::write(dir.path().join("state"), "").unwrap();
        assert!(!found(&options).0 && found(&options).1.contains("no folder"));
    }
}
