//! Writes what the golden dialogues say as seeds for the fuzz targets: `seeds FOLDER` makes
//! `FOLDER/<target>/<dialogue>-<number>`.

#[path = "../../tests/dialogues/script.rs"]
mod script;
#[path = "../seeds.rs"]
mod seeds;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use script::Script;

fn main() -> io::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("name a folder to write to"))?;
    let dialogues = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/dialogues");
    for entry in fs::read_dir(dialogues)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "smtp") {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for (number, (target, bytes)) in seeds::of(&Script::read(&path)).iter().enumerate() {
            fs::create_dir_all(folder.join(target))?;
            fs::write(folder.join(target).join(format!("{name}-{number}")), bytes)?;
        }
    }
    Ok(())
}
