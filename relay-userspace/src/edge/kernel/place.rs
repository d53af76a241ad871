//! One interface of the configuration: the device that bears its name, and the link that holds the
//! program on it.
//!
//! A link clings to the device, not to its name. A device that is renamed stays guarded under its
//! new name, until another one bears the name of the configuration; then the program moves there.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::attach::{attach, find_interface, refuse_others, refuse_unframed};
use super::earlier::{Earlier, Standing};
use super::link::{Hook, Link};
use super::netlink::{self, Device};
use super::pins::{Pins, link_name, remove};
use super::{AttachError, Interface};
use crate::edge::filter::{Attachment, Mode, State};

#[derive(Debug)]
pub(super) struct Place {
    interface: Interface,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    ifindex: u32,
    link: Link,
}

/// What a place is to be given, decided before anything is touched.
#[derive(Debug)]
pub(super) enum Plan {
    /// No interface bears the name. It is attached to when one does.
    Missing,
    Attach {
        ifindex: u32,
    },
    TakeOver(Standing),
    /// What stands there runs in a mode that is no longer permitted.
    AttachInsteadOf(Standing),
}

impl Place {
    pub(super) fn new(interface: Interface) -> Self {
        Self { interface, held: None }
    }

    pub(super) fn name(&self) -> &str {
        &self.interface.name
    }

    /// Refuses before anything is loaded what could not be attached to. An interface that is not there
    /// lets nobody in, so that a missing one among others is no reason to leave those open; it is
    /// attached to when it comes. Where not one is there, something else is wrong.
    pub(super) fn refuse_what_cannot_be(
        places: &[Self],
        earlier: &Earlier,
    ) -> Result<(), AttachError> {
        let (mut any, mut missing) = (false, None);
        for place in places {
            if place.can_be(earlier)? {
                any = true;
            } else {
                missing.get_or_insert(place.name());
            }
        }
        match missing {
            Some(name) if !any => Err(AttachError::NoInterface { interface: name.to_owned() }),
            _ => Ok(()),
        }
    }

    /// Whether an interface bears the name, or did when it was last guarded.
    ///
    /// # Errors
    /// It runs another program, or is none that could be guarded.
    fn can_be(&self, earlier: &Earlier) -> Result<bool, AttachError> {
        let ifindex = match find_interface(self.name()) {
            Err(AttachError::NoInterface { .. }) => return Ok(earlier.keeps_for(self.name())),
            found => found?,
        };
        refuse_unframed(self.name(), ifindex)?;
        if !earlier.holds(ifindex) {
            refuse_others(self.name(), ifindex)?;
        }
        Ok(true)
    }

    /// What each place is to be given. A device that was renamed stays guarded for the place it was
    /// guarded for, unless the configuration knows it by its new name.
    pub(super) fn plans(places: &[Self], earlier: &mut Earlier) -> Result<Vec<Plan>, AttachError> {
        let plans = places.iter().map(|place| place.plan(earlier));
        let mut plans = plans.collect::<Result<Vec<Plan>, _>>()?;
        for (place, plan) in places.iter().zip(&mut plans) {
            if matches!(plan, Plan::Missing)
                && let Some(standing) = earlier.take_kept_for(place.name())
            {
                *plan = place.plan_over(standing);
            }
        }
        Ok(plans)
    }

    fn plan(&self, earlier: &mut Earlier) -> Result<Plan, AttachError> {
        let ifindex = match find_interface(self.name()) {
            Err(AttachError::NoInterface { .. }) => return Ok(Plan::Missing),
            found => found?,
        };
        let standing = earlier.take(ifindex);
        Ok(standing.map_or(Plan::Attach { ifindex }, |standing| self.plan_over(standing)))
    }

    fn plan_over(&self, standing: Standing) -> Plan {
        if standing.hook == Hook::Native || self.interface.generic_permitted {
            Plan::TakeOver(standing)
        } else {
            Plan::AttachInsteadOf(standing)
        }
    }

    /// Attaches where nothing of ours stands. Not pinned yet: it ends with this process.
    pub(super) fn attach_new(&mut self, plan: &Plan, program: &OwnedFd) -> Result<(), AttachError> {
        match plan {
            &Plan::Attach { ifindex } => self.attach_to(ifindex, program),
            Plan::AttachInsteadOf(Standing { ifindex, link, .. }) => {
                // The kernel runs no two programs in two modes: there is a moment without.
                link.detach().map_err(|source| self.failed(source))?;
                self.attach_to(*ifindex, program)
            }
            Plan::Missing | Plan::TakeOver(_) => Ok(()),
        }
    }

    fn attach_to(&mut self, ifindex: u32, program: &OwnedFd) -> Result<(), AttachError> {
        let generic = self.interface.generic_permitted;
        let link = attach(program.as_fd(), self.name(), ifindex, generic)?;
        self.held = Some(Held { ifindex, link });
        Ok(())
    }

    /// Replaces the program that stands, between one packet and the next. Where its link is pinned.
    pub(super) fn take_over(
        &mut self,
        plan: Plan,
        program: &OwnedFd,
    ) -> Result<Option<PathBuf>, AttachError> {
        match plan {
            Plan::TakeOver(Standing { ifindex, link, path, .. }) => {
                link.replace_program(program.as_fd()).map_err(|source| self.failed(source))?;
                self.held = Some(Held { ifindex, link });
                Ok(Some(path))
            }
            Plan::AttachInsteadOf(Standing { path, .. }) => Ok(Some(path)),
            Plan::Missing | Plan::Attach { .. } => Ok(None),
        }
    }

    /// Keeps the link, if there is one, under the interface's name of today. Where that is.
    pub(super) fn pin(&self, pins: &Pins) -> Result<Option<PathBuf>, AttachError> {
        let Some(Held { link, .. }) = &self.held else { return Ok(None) };
        pins.keep_link(link, self.name())?;
        Ok(Some(pins.link(self.name())))
    }

    /// Pins what somebody has removed: without pins, all ends with this process. Links come first: one
    /// alone holds the program and its maps. How many were missing.
    ///
    /// # Errors
    /// The first of what went wrong. The rest was tried all the same.
    pub(super) fn pin_anew(
        places: &[Self],
        maps: &[(&'static str, OwnedFd)],
        pins: &mut Pins,
    ) -> Result<usize, AttachError> {
        pins.own_the_folder()?;
        let lost = |place: &&Self| place.held.is_some() && pins.lacks(&link_name(place.name()));
        let links = places.iter().filter(lost).map(|place| place.pin(pins).map(|_| 1));
        let outcomes: Vec<_> =
            links.collect::<Vec<_>>().into_iter().chain([pins.restore(maps)]).collect();
        outcomes.into_iter().sum()
    }

    /// Undoes [`attach_new`](Self::attach_new).
    pub(super) fn let_go(&mut self) {
        if let Some(Held { link, .. }) = self.held.take() {
            // Its only descriptor goes, and the program with it.
            let _ = link.detach();
        }
    }

    /// What the device that is held is called now, if that is not what it should be.
    fn other_name(&self, program_id: u32) -> Option<String> {
        let (_, device, _) = self.guarded(program_id)?;
        (device.name != self.name()).then_some(device.name)
    }

    /// Where interfaces took over each other's names, so do their places.
    pub(super) fn follow_names(
        places: &mut [Self],
        program_id: u32,
        pins: &Pins,
    ) -> Result<(), AttachError> {
        for at in 0..places.len() {
            let Some(name) = places[at].other_name(program_id) else { continue };
            let Some(its) = places.iter().position(|place| place.name() == name) else { continue };
            let [one, other] = places.get_disjoint_mut([at, its]).expect("two names, two places");
            std::mem::swap(&mut one.held, &mut other.held);
            one.pin(pins)?;
            other.pin(pins)?;
        }
        Ok(())
    }

    fn failed(&self, source: std::io::Error) -> AttachError {
        AttachError::Attach { interface: self.name().to_owned(), source }
    }

    /// The device that is held, if the program is at work on it.
    fn guarded(&self, program_id: u32) -> Option<(u32, Device, Hook)> {
        let held = self.held.as_ref()?;
        let device = netlink::device(held.ifindex).ok().flatten()?;
        let attached = device.program.filter(|attached| attached.program_id == program_id)?;
        Some((held.ifindex, device, attached.hook))
    }

    /// Attaches the program where it should be and is not: a device made anew, one that now bears
    /// the name, or the same one after somebody took the program off. The maps never stopped being
    /// written, so it knows every entry from its first packet. Whether there was anything to do.
    ///
    /// # Errors
    /// It could not. What was guarded before still is.
    pub(super) fn keep(
        &mut self,
        program: &OwnedFd,
        program_id: u32,
        pins: &Pins,
    ) -> Result<bool, AttachError> {
        let guarded = self.guarded(program_id);
        if guarded.as_ref().is_some_and(|(_, device, _)| device.name == self.name()) {
            return Ok(false);
        }
        let ifindex = match find_interface(self.name()) {
            // Renamed and guarded, or gone and not there yet.
            Err(AttachError::NoInterface { .. }) => return Ok(false),
            found => found?,
        };
        let generic = self.interface.generic_permitted;
        let link = attach(program.as_fd(), self.name(), ifindex, generic)?;
        // Held before it is pinned: where it cannot be, it is there at least as long as the edge.
        let before = self.held.replace(Held { ifindex, link });
        if let (Some(Held { link, .. }), Some(_)) = (before, guarded) {
            // It bears another name now, and nobody has asked for that one.
            link.detach().map_err(|source| self.failed(source))?;
        }
        self.pin(pins)?;
        Ok(true)
    }

    pub(super) fn attachment(&self, program_id: u32) -> Attachment {
        let interface = Some(self.name().to_owned());
        let Some((_, device, hook)) = self.guarded(program_id) else {
            let missing = find_interface(self.name()).is_err();
            let state = if missing { State::Missing } else { State::Lost };
            return Attachment {
                interface,
                called: None,
                mode: Mode::Detached,
                state,
                program_id: None,
            };
        };
        Attachment {
            interface,
            called: (device.name != self.name()).then_some(device.name),
            mode: match hook {
                Hook::Native => Mode::Native,
                Hook::Generic => Mode::Generic,
            },
            state: if device.up { State::Up } else { State::Down },
            program_id: Some(program_id),
        }
    }

    /// Takes the program off, now.
    pub(super) fn take_off(self, pins: &Pins) -> Result<(), AttachError> {
        if let Some(Held { link, .. }) = &self.held {
            link.detach().map_err(|source| self.failed(source))?;
        }
        remove(&pins.link(self.name()))
    }
}
