//! The attributes that turn a function into a component's export.
//!
//! - The function itself is left as it is, so that tests can call it and the compiler's messages
//!   point into it.
//! - In a Wasm build the export `handle` is added behind it; in a native build only a check that
//!   the function has one of the allowed forms.
//!
//! Everything else is in `sluicebox-guest`: this crate reads just enough of the function to find
//! its name and to refuse, in plain words, what cannot work. One function of a component carries an
//! attribute; a second one is a second export `handle`, which the linker refuses.

use proc_macro::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};

/// Makes a stage of a function, see the front page of `sluicebox-guest` for its forms.
#[proc_macro_attribute]
pub fn stage(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(Attribute::Stage, &arguments, item)
}

/// Makes a stream function of an `async fn(events: EventStream, out: StreamOutput)`.
///
/// Its stage needs `scope = "stream"` in the manifest.
///
/// With `#[stream(snapshot)]` the function has a third argument, its `Memory<T>`, and its streams
/// can go over to other code (`on-update = "snapshot"`).
#[proc_macro_attribute]
pub fn stream(arguments: TokenStream, item: TokenStream) -> TokenStream {
    match arguments.to_string().as_str() {
        "snapshot" => expand(Attribute::Memory, &TokenStream::new(), item),
        _ => expand(Attribute::Stream, &arguments, item),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Attribute {
    Stage,
    Stream,
    /// A stream function with a memory.
    Memory,
}

fn expand(attribute: Attribute, arguments: &TokenStream, item: TokenStream) -> TokenStream {
    let checked = if arguments.is_empty() {
        function_name(attribute, item.clone())
    } else {
        let message = match attribute {
            Attribute::Stage => "the attribute takes no arguments: settings are in the manifest",
            _ => "the attribute takes no argument but `snapshot`: settings are in the manifest",
        };
        Err((Span::call_site(), message))
    };
    match checked {
        Ok(name) => item.into_iter().chain(export(attribute, &name)).collect(),
        // The item is kept, so that this is the only error.
        Err((span, message)) => item.into_iter().chain(compile_error(span, message)).collect(),
    }
}

/// The name of the function, if the attribute can stand on it.
fn function_name(attribute: Attribute, item: TokenStream) -> Result<Ident, (Span, &'static str)> {
    let mut is_async = false;
    let mut tokens = item.into_iter();
    while let Some(token) = tokens.next() {
        let TokenTree::Ident(word) = token else {
            continue;
        };
        match word.to_string().as_str() {
            "async" => is_async = true,
            "fn" => {
                let Some(TokenTree::Ident(name)) = tokens.next() else {
                    break;
                };
                return match (attribute, is_async) {
                    (Attribute::Stage, true) => Err((
                        word.span(),
                        "an async function is a stream function: use `#[stream]`",
                    )),
                    (Attribute::Stream | Attribute::Memory, false) => {
                        Err((word.span(), "a stream function is async: write `async fn`"))
                    }
                    _ if has_type_parameters(tokens) => Err((
                        name.span(),
                        "a stage has no type parameters: the host knows no types",
                    )),
                    _ => Ok(name),
                };
            }
            _ => {}
        }
    }
    Err((Span::call_site(), "the attribute stands on a function"))
}

/// Whether what follows the name of a function begins with parameters that are not lifetimes.
fn has_type_parameters(mut tokens: impl Iterator<Item = TokenTree>) -> bool {
    let mut is_next = |mark: char| {
        let next = tokens.next();
        matches!(next, Some(TokenTree::Punct(found)) if found.as_char() == mark)
    };
    is_next('<') && !is_next('\'')
}

/// What is added behind the function.
fn export(attribute: Attribute, name: &Ident) -> TokenStream {
    let (check, handle) = match attribute {
        Attribute::Stage => ("check_stage", "handle_stage"),
        Attribute::Stream => ("check_stream", "handle_stream"),
        Attribute::Memory => ("check_memory", "handle_memory"),
    };
    let snapshots = match attribute {
        Attribute::Memory => snapshots(name),
        Attribute::Stage | Attribute::Stream => String::new(),
    };
    let code = format!(
        "#[cfg(not(target_family = \"wasm\"))]
        const _: fn() = || ::sluicebox_guest::__private::{check}({name});
        #[cfg(target_family = \"wasm\")]
        const _: () = {{
            use ::sluicebox_guest::__private::bindings as __bindings;
            struct __Stage;
            impl __bindings::Guest for __Stage {{
                fn handle(
                    __frame: ::std::vec::Vec<u8>,
                ) -> ::std::vec::Vec<__bindings::Failure> {{
                    ::sluicebox_guest::__private::{handle}(__frame, {name})
                }}
            }}
            __bindings::export_stage!(__Stage with_types_in __bindings);
        }};
        {snapshots}"
    );
    let code: TokenStream = code.parse().expect("the text above is Rust");
    point_to(code, name)
}

/// What is added behind a function with a memory.
fn snapshots(name: &Ident) -> String {
    format!(
        "#[cfg(target_family = \"wasm\")]
        const _: () = {{
            use ::sluicebox_guest::__private::bindings::snapshots as __bindings;
            struct __Snapshots;
            impl __bindings::exports::sluicebox::stage::snapshot::Guest for __Snapshots {{
                fn take() -> ::std::result::Result<::std::vec::Vec<u8>, ::std::string::String> {{
                    ::sluicebox_guest::__private::take_memory({name})
                }}
                fn restore(
                    __snapshot: ::std::vec::Vec<u8>,
                ) -> ::std::result::Result<(), ::std::string::String> {{
                    ::sluicebox_guest::__private::restore_memory(&__snapshot, {name})
                }}
            }}
            __bindings::export_snapshots!(__Snapshots with_types_in __bindings);
        }};"
    )
}

/// Gives every mention of the function the place where it is written, for the compiler's messages.
fn point_to(code: TokenStream, name: &Ident) -> TokenStream {
    let text = name.to_string();
    let pointed = code.into_iter().map(|token| match token {
        TokenTree::Ident(word) if word.to_string() == text => TokenTree::Ident(name.clone()),
        TokenTree::Group(group) => {
            let mut pointed = Group::new(group.delimiter(), point_to(group.stream(), name));
            pointed.set_span(group.span());
            TokenTree::Group(pointed)
        }
        other => other,
    });
    pointed.collect()
}

/// `compile_error!` at a place in the author's code.
fn compile_error(span: Span, message: &str) -> TokenStream {
    let code: TokenStream =
        format!("::core::compile_error!({message:?});").parse().expect("the text above is Rust");
    let place = |token: TokenTree| {
        let mut token = match token {
            TokenTree::Group(group) => {
                let inner = group.stream().into_iter().map(|mut token| {
                    token.set_span(span);
                    token
                });
                TokenTree::Group(Group::new(Delimiter::Parenthesis, inner.collect()))
            }
            other => other,
        };
        token.set_span(span);
        token
    };
    code.into_iter().map(place).collect()
}
