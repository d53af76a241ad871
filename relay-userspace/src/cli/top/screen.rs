//! The terminal: taken at the start, and given back as it was, however it ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::{DefaultTerminal, Frame};
use tokio::sync::mpsc::Sender;

/// How soon the thread that reads keys sees that it is to end.
const LOOK_UP_EVERY: Duration = Duration::from_millis(100);

/// What somebody did to the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    Quit,
    /// Its size is another one.
    Redraw,
}

/// The terminal, taken. Dropping this gives it back; a panic does so before it speaks.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: DefaultTerminal,
    stop: Arc<AtomicBool>,
    left: bool,
}

impl Screen {
    /// Takes the terminal, and says on `touches` what is done to it.
    pub(super) fn enter(touches: Sender<Touch>) -> io::Result<Self> {
        let terminal = ratatui::try_init()?;
        let stop = Arc::new(AtomicBool::new(false));
        let screen = Self { terminal, stop: Arc::clone(&stop), left: false };
        let read = move || {
            // Without a reader of keys nobody could end it, so its end is the end.
            while let Ok(touch) = next(&stop) {
                let Some(touch) = touch else { continue };
                if touches.blocking_send(touch).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("keys".into()).spawn(read)?;
        Ok(screen)
    }

    pub(super) fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(render).map(drop)
    }

    /// Gives the terminal back.
    pub(super) fn leave(mut self) -> io::Result<()> {
        self.give_back()
    }

    fn give_back(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.left, true) {
            return Ok(());
        }
        // The thread is not waited for: on a terminal that is gone it may never come back.
        self.stop.store(true, Ordering::Relaxed);
        let shown = self.terminal.show_cursor();
        ratatui::try_restore().and(shown)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // On the way out of an error, which is the one to tell.
        let _ = self.give_back();
    }
}

/// The next touch, if there is one soon.
fn next(stop: &AtomicBool) -> io::Result<Option<Touch>> {
    if stop.load(Ordering::Relaxed) {
        return Err(io::ErrorKind::Interrupted.into());
    }
    if !event::poll(LOOK_UP_EVERY)? {
        return Ok(None);
    }
    Ok(meaning(&event::read()?))
}

pub(super) fn meaning(event: &Event) -> Option<Touch> {
    match event {
        Event::Resize(..) => Some(Touch::Redraw),
        Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) => match code {
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => Some(Touch::Quit),
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Some(Touch::Quit),
            _ => None,
        },
        _ => None,
    }
}
