//! A drawn change as a switch: where in the text it goes, and what it says.
//!
//! The tool names the span of a body, of an operator's sign, of an arm. A body begins with `if drawn(N) { return VALUE; }`; an
//! operator is replaced with the whole of its expression, which only the syntax tree knows: `(if drawn(N) { a <= b } else
//! { a < b })`; an arm gets a guard. Switches nest: the changed branch holds the text as shipped, the other one the switches
//! within. Each switch stands between two marks, so that an error of the compiler can be laid to its charge. Never: a
//! change where the compiler wants a constant, or in a chain of `let`, which takes no switch.

use proc_macro2::Span;
use syn::{
    spanned::Spanned,
    visit::{self, Visit},
};

use super::list::{Genre, Mutation, Place};

/// A switch around a piece of text.
#[derive(Debug, Clone)]
pub(super) struct Switch {
    pub(super) number: usize,
    start: usize,
    end: usize,
    before: String,
    after: String,
}

/// The switch for `mutation` in `text`, parsed as `tree`; or why there is none.
pub(super) fn switch(
    text: &str,
    tree: &syn::File,
    mutation: &Mutation,
    number: usize,
) -> Result<Switch, &'static str> {
    let start = offset(text, mutation.span.start).ok_or("its place is not in the file")?;
    let end = offset(text, mutation.span.end).ok_or("its place is not in the file")?;
    let mut finder = Finder { text, mutation, number, start, end, constant: 0, found: None };
    finder.visit_file(tree);
    finder.found.unwrap_or(Err("the syntax tree has nothing there"))
}

/// The byte at which a place is.
fn offset(text: &str, place: Place) -> Option<usize> {
    let mut lines = text.split_inclusive('\n');
    let before: usize = lines.by_ref().take(place.line - 1).map(str::len).sum();
    let line = lines.next()?;
    let within = line.char_indices().map(|(at, _)| at).chain([line.len()]).nth(place.column - 1)?;
    Some(before + within)
}

struct Finder<'a> {
    text: &'a str,
    mutation: &'a Mutation,
    number: usize,
    start: usize,
    end: usize,
    /// How many constants we are within.
    constant: usize,
    found: Option<Result<Switch, &'static str>>,
}

impl Finder<'_> {
    fn is_it(&self, span: Span) -> bool {
        let range = span.byte_range();
        range.start == self.start && range.end == self.end
    }

    fn wrap(&mut self, span: Span, before: String, after: &str) {
        let range = span.byte_range();
        self.put(range.start, range.end, before, after);
    }

    fn put(&mut self, start: usize, end: usize, before: String, after: &str) {
        self.found = Some(if self.constant > 0 {
            Err("a constant takes no switch")
        } else {
            Ok(Switch { number: self.number, start, end, before, after: after.to_owned() })
        });
    }

    fn shipped(&self, span: Span) -> &str {
        &self.text[span.byte_range()]
    }

    fn body(&mut self, constant: bool, block: &syn::Block) {
        let (Some(first), Some(last)) = (block.stmts.first(), block.stmts.last()) else { return };
        let inside =
            first.span().byte_range().start >= self.start && last.span().byte_range().end <= self.end;
        let whole = block.span().byte_range();
        if self.mutation.genre == Genre::FnValue
            && inside
            && whole.start <= self.start
            && whole.end >= self.end
            && self.found.is_none()
        {
            self.constant += usize::from(constant);
            let value =
                format!("if crate::drawn({}) {{ return {}; }} ", self.number, self.mutation.replacement);
            self.put(self.start, self.start, value, "");
            self.constant -= usize::from(constant);
        }
    }

    fn within_constant(&mut self, go: impl FnOnce(&mut Self)) {
        self.constant += 1;
        go(self);
        self.constant -= 1;
    }
}

/// Whether `expression` is a chain with a `let` in it.
fn has_let(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.body(item.sig.constness.is_some(), &item.block);
        self.constant += usize::from(item.sig.constness.is_some());
        visit::visit_item_fn(self, item);
        self.constant -= usize::from(item.sig.constness.is_some());
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.body(item.sig.constness.is_some(), &item.block);
        self.constant += usize::from(item.sig.constness.is_some());
        visit::visit_impl_item_fn(self, item);
        self.constant -= usize::from(item.sig.constness.is_some());
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.body(item.sig.constness.is_some(), block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.within_constant(|this| visit::visit_item_const(this, item));
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.within_constant(|this| visit::visit_impl_item_const(this, item));
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.within_constant(|this| visit::visit_item_static(this, item));
    }

    fn visit_type_array(&mut self, item: &'ast syn::TypeArray) {
        self.within_constant(|this| visit::visit_type_array(this, item));
    }

    fn visit_expr_repeat(&mut self, item: &'ast syn::ExprRepeat) {
        self.visit_expr(&item.expr);
        self.within_constant(|this| this.visit_expr(&item.len));
    }

    fn visit_expr_const(&mut self, item: &'ast syn::ExprConst) {
        self.within_constant(|this| visit::visit_expr_const(this, item));
    }

    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        let sign = binary.op.span();
        if self.mutation.genre == Genre::BinaryOperator && self.is_it(sign) {
            if has_let(&binary.left) || has_let(&binary.right) {
                self.found = Some(Err("a chain of `let` takes no switch"));
                return;
            }
            let whole = binary.span().byte_range();
            let changed = format!(
                "(if crate::drawn({}) {{ {}{}{} }} else {{ ",
                self.number,
                &self.text[whole.start..self.start],
                self.mutation.replacement,
                &self.text[self.end..whole.end],
            );
            self.wrap(binary.span(), changed, " })");
            return;
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        if self.mutation.genre == Genre::UnaryOperator && self.is_it(unary.op.span()) {
            let rest = self.shipped(unary.expr.span());
            let changed = format!(
                "(if crate::drawn({}) {{ {} {rest} }} else {{ ",
                self.number, self.mutation.replacement
            );
            self.wrap(unary.span(), changed, " })");
            return;
        }
        visit::visit_expr_unary(self, unary);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let guard = arm.guard.as_ref().map(|(_, guard)| guard);
        match (self.mutation.genre, guard) {
            (Genre::MatchArmGuard, Some(guard)) if self.is_it(guard.span()) => {
                let value = &self.mutation.replacement;
                let changed = format!("(if crate::drawn({}) {{ {value} }} else {{ ", self.number);
                return self.wrap(guard.span(), changed, " })");
            }
            (Genre::MatchArm, guard) => {
                let (whole, pattern) = (arm.span().byte_range(), arm.pat.span().byte_range());
                // The tool's arm goes with or without its comma.
                let begins = whole.start == self.start || pattern.start == self.start;
                if begins && self.end >= whole.end.saturating_sub(1) {
                    return match guard {
                        Some(guard) => {
                            let keep = format!("(!crate::drawn({}) && (", self.number);
                            self.wrap(guard.span(), keep, "))");
                        }
                        None => {
                            let keep = format!(" if !crate::drawn({})", self.number);
                            self.put(pattern.end, pattern.end, keep, "");
                        }
                    };
                }
            }
            _ => {}
        }
        visit::visit_arm(self, arm);
    }

    fn visit_expr_struct(&mut self, value: &'ast syn::ExprStruct) {
        if self.mutation.genre == Genre::StructField
            && let Some(rest) = &value.rest
        {
            let ours = value.fields.iter().find(|field| field.span().byte_range().start == self.start);
            if let Some(field) = ours
                && let syn::Member::Named(name) = &field.member
            {
                let base = match self.shipped(rest.span()) {
                    "Default::default()" => {
                        format!("<{} as Default>::default()", self.shipped(value.path.span()))
                    }
                    base => format!("({base})"),
                };
                let colon = if field.colon_token.is_some() { String::new() } else { format!("{name}: ") };
                let changed = format!("{colon}if crate::drawn({}) {{ {base}.{name} }} else {{ ", self.number);
                return self.wrap(field.expr.span(), changed, " }");
            }
        }
        visit::visit_expr_struct(self, value);
    }
}

/// `text` with all `switches` in it.
pub(super) fn render(text: &str, switches: &[&Switch]) -> String {
    let mut order: Vec<&Switch> = switches.to_vec();
    // From outside to inside; what stands at a place before what goes around the text there.
    order.sort_by_key(|switch| {
        let around = switch.end - switch.start;
        (switch.start, usize::from(around > 0), usize::MAX - around)
    });
    let mut planted = String::with_capacity(text.len() * 2);
    let mut open: Vec<&Switch> = Vec::new();
    let mut behind = 0;
    for switch in order {
        while open.last().is_some_and(|last| last.end <= switch.start) {
            close(&mut planted, text, &mut open, &mut behind);
        }
        planted.push_str(&text[behind..switch.start]);
        behind = switch.start;
        planted.push_str(&format!("/*<{}*/", switch.number));
        planted.push_str(&switch.before);
        open.push(switch);
        if switch.start == switch.end {
            close(&mut planted, text, &mut open, &mut behind);
        }
    }
    while !open.is_empty() {
        close(&mut planted, text, &mut open, &mut behind);
    }
    planted.push_str(&text[behind..]);
    planted
}

fn close(planted: &mut String, text: &str, open: &mut Vec<&Switch>, behind: &mut usize) {
    if let Some(switch) = open.pop() {
        planted.push_str(&text[*behind..switch.end]);
        planted.push_str(&switch.after);
        planted.push_str(&format!("/*{}>*/", switch.number));
        *behind = switch.end;
    }
}

/// The numbers of the switches that stand around byte `at` of a text that [`render`] made, from outside to inside.
pub(super) fn around(planted: &str, at: usize) -> Vec<usize> {
    let mut open = Vec::new();
    let mut from = 0;
    while let Some(found) = planted[from..].find("/*") {
        let mark = from + found;
        let Some(length) = planted[mark..].find("*/") else { break };
        let inside = &planted[mark + 2..mark + length];
        if mark >= at {
            break;
        }
        if let Some(number) = inside.strip_prefix('<').and_then(|number| number.parse::<usize>().ok()) {
            open.push(number);
        } else if let Some(number) = inside.strip_suffix('>').and_then(|number| number.parse::<usize>().ok())
        {
            open.retain(|open| *open != number);
        }
        from = mark + 2;
    }
    open
}

#[cfg(test)]
mod tests {
    use super::{super::list::Range, *};

    const TEXT: &str = "\
fn outer(a: u32, b: u32) -> bool {
    // ä
    let c = a + b * 2;
    match c {
        1 => true,
        2 if a < b => !(a == 1),
        _ => false,
    }
}
const C: u32 = 1 + 2;
";

    fn mutation(genre: Genre, from: &str, replacement: &str) -> Mutation {
        let at = TEXT.find(from).unwrap();
        let place = |at: usize| {
            let line = TEXT[..at].matches('\n').count() + 1;
            let begin = TEXT[..at].rfind('\n').map_or(0, |end| end + 1);
            Place { line, column: TEXT[begin..at].chars().count() + 1 }
        };
        Mutation {
            file: String::new(),
            name: String::new(),
            genre,
            replacement: replacement.to_owned(),
            span: Range { start: place(at), end: place(at + from.len()) },
            diff: String::new(),
        }
    }

    fn planted(mutations: &[Mutation]) -> String {
        let tree = syn::parse_file(TEXT).unwrap();
        let switch = |(number, mutation)| switch(TEXT, &tree, mutation, number).unwrap();
        let switches: Vec<Switch> = mutations.iter().enumerate().map(switch).collect();
        render(TEXT, &switches.iter().collect::<Vec<_>>())
    }

    #[test]
    fn an_operator_becomes_a_switch_around_its_expression() {
        let text =
            planted(&[mutation(Genre::BinaryOperator, "+", "-"), mutation(Genre::BinaryOperator, "*", "/")]);
        assert!(
            text.contains(
                "let c = /*<0*/(if crate::drawn(0) { a - b * 2 } else { a + /*<1*/(if crate::drawn(1) { b / 2 } \
                 else { b * 2 })/*1>*/ })/*0>*/;"
            ),
            "{text}"
        );
        assert!(syn::parse_file(&text).is_ok());
        let inner = text.find("b / 2").unwrap();
        assert_eq!(around(&text, inner), [0, 1]);
        assert!(around(&text, text.find("match").unwrap()).is_empty());
    }

    #[test]
    fn bodies_arms_and_guards_become_switches_too() {
        let body = TEXT.find("let c").unwrap();
        let end = TEXT.find("\n}\nconst").unwrap();
        let text = planted(&[
            mutation(Genre::FnValue, &TEXT[body..end], "true"),
            mutation(Genre::MatchArm, "1 => true,", ""),
            mutation(Genre::MatchArmGuard, "a < b", "true"),
            mutation(Genre::MatchArm, "2 if a < b => !(a == 1),", ""),
            mutation(Genre::UnaryOperator, "!", ""),
        ]);
        assert!(text.contains("/*<0*/if crate::drawn(0) { return true; } /*0>*/let c"), "{text}");
        assert!(text.contains("1/*<1*/ if !crate::drawn(1)/*1>*/ => true,"), "{text}");
        assert!(text.contains("(if crate::drawn(2) { true } else { "), "{text}");
        assert!(text.contains("(!crate::drawn(3) && ("), "{text}");
        assert!(text.contains("(if crate::drawn(4) {  (a == 1) } else { !(a == 1) })"), "{text}");
        assert!(syn::parse_file(&text).is_ok(), "{text}");
    }

    #[test]
    fn a_constant_takes_no_switch() {
        let tree = syn::parse_file(TEXT).unwrap();
        let mut constant = mutation(Genre::BinaryOperator, "1 + 2", "-");
        constant.span.start.column += 2;
        constant.span.end.column -= 2;
        assert_eq!(switch(TEXT, &tree, &constant, 0).unwrap_err(), "a constant takes no switch");
    }
}
