//! The way into Vulkan: its library, an instance, and what the validation layer says of our calls.
//!
//! - A machine without the library, or without a driver for it, gives [`Error::None`].
//! - The layer's errors are kept, a bounded number of them, and nothing is printed.

#![expect(unsafe_code, reason = "calls of Vulkan")]

use std::ffi::{CStr, c_void};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ash::ext::{debug_utils, validation_features};
use ash::{Entry, vk};

use crate::Error;

/// What everything here is written for.
pub(super) const VERSION: u32 = vk::API_VERSION_1_3;

const LAYER: &CStr = c"VK_LAYER_KHRONOS_validation";

/// Complaints that are kept; later ones are only counted.
const COMPLAINTS_MAX: usize = 64;

/// What the validation layer has said, which may be asked for after the device is gone as well.
#[derive(Debug, Clone, Default)]
pub struct Complaints(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    texts: Vec<String>,
    /// How many came behind them.
    more: usize,
}

impl Complaints {
    /// Takes all until now.
    #[must_use]
    pub fn take(&self) -> Vec<String> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { mut texts, more } = std::mem::take(&mut *kept);
        if more > 0 {
            texts.push(format!("and {more} more"));
        }
        texts
    }

    fn add(&self, text: &str) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.texts.len() < COMPLAINTS_MAX {
            kept.texts.push(text.to_owned());
        } else {
            kept.more += 1;
        }
    }
}

/// An instance, as long as this lives.
pub(super) struct Instance {
    raw: ash::Instance,
    messenger: Option<(debug_utils::Instance, vk::DebugUtilsMessengerEXT)>,
    /// Where the messenger writes: at one place for as long as there is one.
    complaints: Box<Complaints>,
    /// Holds the library, for longer than what came out of it.
    _entry: Entry,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("validation", &self.messenger.is_some()).finish()
    }
}

impl Instance {
    /// Opens Vulkan, with the validation layer if that is wanted.
    ///
    /// # Errors
    /// [`Error::None`] if there is no Vulkan here, or not the layer.
    pub(super) fn open(validation: bool) -> Result<Self, Error> {
        // SAFETY: this is the system's loader of drivers, made for being loaded; that its code is
        // what it says is for the system's owner. `_entry` outlives all that is taken out of it.
        let entry = unsafe { Entry::load() };
        let entry = entry.map_err(|why| Error::None(format!("no Vulkan library: {why}")))?;
        // SAFETY: a loader of 1.0 has no such function, and is seen by that.
        let version = unsafe { entry.try_enumerate_instance_version() };
        let version = version.map_err(none("ask for its version"))?;
        if version.is_none_or(|version| version < VERSION) {
            return Err(Error::None("the Vulkan library is older than 1.3".to_owned()));
        }
        if validation && !has_layer(&entry)? {
            return Err(Error::None(format!("no layer {}", LAYER.to_string_lossy())));
        }
        let complaints = Box::<Complaints>::default();
        let raw = create(&entry, validation.then_some(&complaints))?;
        let mut instance = Self { raw, messenger: None, complaints, _entry: entry };
        if validation {
            instance.listen()?;
        }
        Ok(instance)
    }

    pub(super) fn raw(&self) -> &ash::Instance {
        &self.raw
    }

    pub(super) fn complaints(&self) -> Complaints {
        (*self.complaints).clone()
    }

    fn listen(&mut self) -> Result<(), Error> {
        let utils = debug_utils::Instance::new(&self._entry, &self.raw);
        let info = messenger(&self.complaints);
        // SAFETY: the extension is on if there is validation; `hear` gets what `info` says, which
        // stays where it is until behind `drop`, where the messenger ends.
        let messenger = unsafe { utils.create_debug_utils_messenger(&info, None) };
        self.messenger = Some((utils, messenger.map_err(none("listen to its layer"))?));
        Ok(())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some((utils, messenger)) = self.messenger.take() {
            // SAFETY: it was made here, by this instance, and nobody else has it.
            unsafe { utils.destroy_debug_utils_messenger(messenger, None) };
        }
        // SAFETY: whatever was made of it is gone: `Gpu` holds this, and ends its device before.
        unsafe { self.raw.destroy_instance(None) };
    }
}

/// For what fails before there is a device.
fn none(doing: &str) -> impl FnOnce(vk::Result) -> Error {
    move |why| Error::None(format!("Vulkan could not {doing}: {why}"))
}

fn has_layer(entry: &Entry) -> Result<bool, Error> {
    // SAFETY: it may be called at any time.
    let layers = unsafe { entry.enumerate_instance_layer_properties() };
    let layers = layers.map_err(none("list its layers"))?;
    Ok(layers.iter().any(|layer| layer.layer_name_as_c_str() == Ok(LAYER)))
}

fn create(entry: &Entry, complaints: Option<&Complaints>) -> Result<ash::Instance, Error> {
    let application = vk::ApplicationInfo::default()
        .application_name(c"sluicebox")
        .engine_name(c"sluicebox")
        .api_version(VERSION);
    let mut info = vk::InstanceCreateInfo::default().application_info(&application);
    let layers = [LAYER.as_ptr()];
    let extensions = [debug_utils::NAME.as_ptr(), validation_features::NAME.as_ptr()];
    let features = [vk::ValidationFeatureEnableEXT::SYNCHRONIZATION_VALIDATION];
    let mut features = vk::ValidationFeaturesEXT::default().enabled_validation_features(&features);
    let mut listener = complaints.map(messenger);
    if let Some(listener) = &mut listener {
        info = info.enabled_layer_names(&layers).enabled_extension_names(&extensions);
        // For what happens before and behind the messenger that is made later.
        info = info.push_next(&mut features).push_next(listener);
    }
    // SAFETY: all that `info` points at lives until behind the call; what `hear` is given, until
    // the instance is gone.
    unsafe { entry.create_instance(&info, None) }.map_err(none("start"))
}

fn messenger(complaints: &Complaints) -> vk::DebugUtilsMessengerCreateInfoEXT<'static> {
    vk::DebugUtilsMessengerCreateInfoEXT::default()
        .message_severity(vk::DebugUtilsMessageSeverityFlagsEXT::ERROR)
        .message_type(
            vk::DebugUtilsMessageTypeFlagsEXT::GENERAL
                | vk::DebugUtilsMessageTypeFlagsEXT::VALIDATION
                | vk::DebugUtilsMessageTypeFlagsEXT::PERFORMANCE,
        )
        .pfn_user_callback(Some(hear))
        .user_data(std::ptr::from_ref(complaints).cast_mut().cast())
}

/// Called by the layer, from any thread, inside a call of ours.
unsafe extern "system" fn hear(
    _: vk::DebugUtilsMessageSeverityFlagsEXT,
    _: vk::DebugUtilsMessageTypeFlagsEXT,
    message: *const vk::DebugUtilsMessengerCallbackDataEXT<'_>,
    complaints: *mut c_void,
) -> vk::Bool32 {
    // SAFETY: it is what `messenger` was given, which lives for longer than the instance.
    let complaints = unsafe { &*complaints.cast_const().cast::<Complaints>() };
    // SAFETY: the layer's, valid during this call.
    let message = unsafe { &*message };
    // SAFETY: the layer gives a text that ends with a zero, valid during this call, or nothing.
    let text = unsafe { message.message_as_c_str() };
    complaints.add(&text.unwrap_or(c"something it does not say").to_string_lossy());
    vk::FALSE
}
