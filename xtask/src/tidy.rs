pub(crate) use anyhow::Result;
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    bless: bool,
}
pub(crate) fn main(a: &Args) -> Result<()> {
    let _ = a.bless;
    Ok(())
}
