//! The image: everything that needs the machine itself.
