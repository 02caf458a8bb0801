//! The events of libyaml, without its pointers. Nothing here knows what the events mean.

use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use unsafe_libyaml_norway as unsafe_sys;

use super::yaml::{Place, YamlError};

/// What follows in a text.
#[derive(Debug)]
pub(super) enum Event {
    StreamEnd,
    DocumentStart,
    /// Nothing to act on: the stream's start, a document's end.
    Other,
    Alias(Box<[u8]>),
    Scalar {
        text: Box<str>,
        /// Written without quotes, and not as a block.
        plain: bool,
        anchor: Option<Box<[u8]>>,
        has_tag: bool,
    },
    Start {
        anchor: Option<Box<[u8]>>,
        is_map: bool,
    },
    End,
}

/// Reads a text event by event.
pub(super) struct Parser<'t> {
    /// In memory of its own, which this owns: libyaml keeps a pointer to it in itself.
    parser: NonNull<unsafe_sys::yaml_parser_t>,
    text: PhantomData<&'t str>,
}

impl<'t> Parser<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let parser = NonNull::from(Box::leak(Box::new(MaybeUninit::<unsafe_sys::yaml_parser_t>::uninit()))).cast();
        let at: *mut unsafe_sys::yaml_parser_t = parser.as_ptr();
        // SAFETY: `at` points to memory for a parser; this makes it one. It fails only without memory, and then it aborts.
        let _ = unsafe { unsafe_sys::yaml_parser_initialize(at) };
        // SAFETY: the parser was initialised above and has no encoding yet.
        unsafe { unsafe_sys::yaml_parser_set_encoding(at, unsafe_sys::YAML_UTF8_ENCODING) };
        // SAFETY: the text outlives the parser, by the lifetime 't, and is as long as it says.
        unsafe { unsafe_sys::yaml_parser_set_input_string(at, text.as_ptr(), text.len() as u64) };
        Self { parser, text: PhantomData }
    }

    /// The next event and where it begins.
    pub(super) fn next(&mut self) -> Result<(Event, Place), YamlError> {
        let mut event = MaybeUninit::uninit();
        let to: *mut unsafe_sys::yaml_event_t = event.as_mut_ptr();
        // SAFETY: the parser is initialised, and the event is memory for one, which this fills.
        let read = unsafe { unsafe_sys::yaml_parser_parse(self.parser.as_ptr(), to) };
        if read.fail {
            return Err(self.error());
        }
        // SAFETY: reading succeeded, so the event is initialised.
        let filled = unsafe { event.assume_init_ref() };
        // SAFETY: the event is as libyaml filled it: its kind says which of its data is there.
        let owned = unsafe { owned(filled) };
        let at = place(filled.start_mark);
        // SAFETY: the event is initialised, its data was copied, and it is not used again.
        unsafe { unsafe_sys::yaml_event_delete(to) };
        Ok((owned, at))
    }

    fn error(&self) -> YamlError {
        // SAFETY: the parser was initialised when it was made.
        let parser = unsafe { self.parser.as_ref() };
        // SAFETY: libyaml's messages are static and end with a NUL.
        let problem = unsafe { message(parser.problem) };
        // SAFETY: likewise.
        let context = unsafe { message(parser.context) };
        YamlError {
            is_tag: context == "while scanning a tag",
            message: if problem.is_empty() { "the text is no YAML".to_owned() } else { problem.to_owned() },
            at: place(parser.problem_mark),
        }
    }
}

impl Drop for Parser<'_> {
    fn drop(&mut self) {
        // SAFETY: the parser was initialised when it was made and is not used again.
        unsafe { unsafe_sys::yaml_parser_delete(self.parser.as_ptr()) };
        // SAFETY: the memory is that of the box leaked when the parser was made; what is in it needs no drop.
        drop(unsafe { Box::from_raw(self.parser.as_ptr().cast::<MaybeUninit<unsafe_sys::yaml_parser_t>>()) });
    }
}

/// A copy of an event.
///
/// # Safety
/// libyaml filled the event, and it was not deleted.
unsafe fn owned(event: &unsafe_sys::yaml_event_t) -> Event {
    match event.type_ {
        unsafe_sys::YAML_STREAM_END_EVENT | unsafe_sys::YAML_NO_EVENT => Event::StreamEnd,
        unsafe_sys::YAML_DOCUMENT_START_EVENT => Event::DocumentStart,
        unsafe_sys::YAML_ALIAS_EVENT => {
            // SAFETY: the event is an alias.
            let alias = unsafe { &event.data.alias };
            // SAFETY: the name of an anchor is a C string of the event.
            Event::Alias(unsafe { bytes(alias.anchor) }.unwrap_or_default())
        }
        unsafe_sys::YAML_SCALAR_EVENT => {
            // SAFETY: the event is a scalar.
            let scalar = unsafe { &event.data.scalar };
            let length = scalar.length as usize;
            // SAFETY: the value has so many bytes, and it is there even where they are none.
            let text = unsafe { std::slice::from_raw_parts(scalar.value, length) };
            Event::Scalar {
                text: String::from_utf8_lossy(text).into(),
                plain: scalar.style == unsafe_sys::YAML_PLAIN_SCALAR_STYLE,
                // SAFETY: the name of an anchor is a C string of the event, or there is none.
                anchor: unsafe { bytes(scalar.anchor) },
                has_tag: !scalar.tag.is_null(),
            }
        }
        unsafe_sys::YAML_SEQUENCE_START_EVENT => {
            // SAFETY: the event is the start of a sequence.
            let start = unsafe { &event.data.sequence_start };
            // SAFETY: the name of an anchor is a C string of the event, or there is none.
            Event::Start { anchor: unsafe { bytes(start.anchor) }, is_map: false }
        }
        unsafe_sys::YAML_MAPPING_START_EVENT => {
            // SAFETY: the event is the start of a map.
            let start = unsafe { &event.data.mapping_start };
            // SAFETY: the name of an anchor is a C string of the event, or there is none.
            Event::Start { anchor: unsafe { bytes(start.anchor) }, is_map: true }
        }
        unsafe_sys::YAML_SEQUENCE_END_EVENT | unsafe_sys::YAML_MAPPING_END_EVENT => Event::End,
        _ => Event::Other,
    }
}

/// A copy of a C string, if there is one.
///
/// # Safety
/// The pointer is null, or points to a C string.
unsafe fn bytes(text: *const u8) -> Option<Box<[u8]>> {
    if text.is_null() {
        return None;
    }
    // SAFETY: it is not null, so it is a C string.
    Some(unsafe { CStr::from_ptr(text.cast::<c_char>()) }.to_bytes().into())
}

/// A message of libyaml; empty if there is none.
///
/// # Safety
/// The pointer is null, or points to a C string that is never freed.
unsafe fn message(text: *const i8) -> &'static str {
    if text.is_null() {
        return "";
    }
    // SAFETY: it is not null, so it is a C string.
    unsafe { CStr::from_ptr(text.cast::<c_char>()) }.to_str().unwrap_or_default()
}

fn place(mark: unsafe_sys::yaml_mark_t) -> Place {
    Place { line: mark.line as usize + 1, column: mark.column as usize + 1 }
}
