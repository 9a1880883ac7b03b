//! Files of misconduct in a folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sigillo_model::misconduct::{MISCONDUCT_MAX_BYTES, Misconduct};

use crate::files::create;

/// Files of misconduct in a folder beyond which no more are written.
const FILES_MAX: usize = 64;

/// Writes misconduct down, unless a file in the folder says the same already; its file.
pub(super) fn write_down(dir: &Path, seconds: u64, misconduct: &Misconduct) -> io::Result<PathBuf> {
    let is_evidence = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("misconduct-");
    let files = fs::read_dir(dir)?.filter_map(Result::ok).filter(is_evidence).take(FILES_MAX);
    let files: Vec<PathBuf> = files.map(|entry| entry.path()).collect();
    if let Some(standing) = files.iter().find(|path| read(path).is_some_and(|found| says_the_same(&found, misconduct)))
    {
        return Ok(standing.clone());
    }
    if files.len() >= FILES_MAX {
        return Err(io::Error::other("there are too many files of misconduct: put them somewhere safe"));
    }
    let text = misconduct.to_text(seconds);
    let mut number = 0;
    loop {
        let more = if number == 0 { String::new() } else { format!("-{number}") };
        let path = dir.join(format!("misconduct-{seconds}{more}.txt"));
        match create(&path, text.as_bytes()) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < FILES_MAX => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// What a file says; one that can't be read, or is cut off, stands for nothing.
fn read(path: &Path) -> Option<Misconduct> {
    let length = fs::metadata(path).ok().filter(fs::Metadata::is_file)?.len();
    if length > MISCONDUCT_MAX_BYTES as u64 {
        return None;
    }
    Misconduct::parse(&fs::read_to_string(path).ok()?).ok().map(|(misconduct, _)| misconduct)
}

fn says_the_same(one: &Misconduct, other: &Misconduct) -> bool {
    use Misconduct::NotContinued;
    match (one, other) {
        // The proof that fails may be another each time.
        (NotContinued { remembered, shown, .. }, NotContinued { remembered: also, shown: again, .. }) => {
            remembered == also && shown == again
        }
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_written_once_while_its_file_stands() {
        let dir = tempfile::tempdir().unwrap();
        let rolled_back = |shown: Option<&str>| Misconduct::RolledBack {
            remembered: "a\n".into(),
            shown: shown.map(ToOwned::to_owned),
        };
        let first = write_down(dir.path(), 7, &rolled_back(None)).unwrap();
        assert_eq!(write_down(dir.path(), 9, &rolled_back(None)).unwrap(), first);
        let second = write_down(dir.path(), 7, &rolled_back(Some("b\n"))).unwrap();
        assert_ne!(second, first);
        let not_continued = |proof| Misconduct::NotContinued { remembered: "a\n".into(), shown: "b\n".into(), proof };
        let third = write_down(dir.path(), 7, &not_continued(Vec::new())).unwrap();
        let proof = vec![sigillo_model::ids::NodeHash::new([1; 32])];
        assert_eq!(write_down(dir.path(), 7, &not_continued(proof)).unwrap(), third);
        // A file that is cut off stands for nothing.
        fs::write(&first, "sigillo misconduct v1\n").unwrap();
        let anew = write_down(dir.path(), 9, &rolled_back(None)).unwrap();
        assert!(![first, second, third].contains(&anew));
    }
}
