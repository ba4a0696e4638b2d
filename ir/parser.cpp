#include "ir/parser.h"

#include "ir/element_spans.h"
#include "ir/error.h"
#include "ir/parser_parts.h"
#include "ir/text_fields.h"

namespace spion {
namespace {

ScoreSummaryProgram read_summary(TextReader& reader) {
    ScoreSummaryProgram program;
    program.attention = read_attention(reader);
    const int line = reader.line();
    reader.literal("shape");
    program.block = int_field(reader, "block", 1);
    program.tile = int_field(reader, "tile", 1);
    program.filter = int_field(reader, "filter", 1);
    reader.next_line();
    if (const std::optional<Fault> fault = find_fault(program)) {
        reader.fail_at_line(line, fault->rule);
    }
    return program;
}

StepProgram read_step(TextReader& reader, std::string_view name, int line) {
    StepProgram program{.name = std::string(name), .constants = {}};
    reader.literal("shape");
    while (!reader.at_line_end()) {
        const std::string_view constant = reader.name("the name of a constant");
        reader.literal("=");
        const float value = reader.number(fmt::format("{} as a number", constant));
        program.constants.push_back({.name = std::string(constant), .value = value});
    }
    reader.next_line();
    if (const std::optional<Fault> fault = find_fault(program)) {
        reader.fail_at_line(line, fault->rule);
    }
    return program;
}

// The role of a program of attention.
KernelRole read_role(TextReader& reader) {
    const std::string_view role = reader.word("role");
    try {
        return parse_kernel_role(role);
    } catch (const UserError& error) {
        reader.fail_at_last(fmt::format("{}, score_summary or train_NAME", error.what()));
    }
}

// "program role=<role>" and what follows, into the list of its kind.
void read_program(TextReader& reader, IrModule& ir, Completeness completeness) {
    const int line = reader.line();
    reader.literal("program");
    field_name(reader, "role");
    if (reader.at_word("score_summary")) {
        reader.literal("score_summary");
        reader.next_line();
        ir.summaries.push_back(read_summary(reader));
    } else if (reader.accept("train_")) {
        const std::string_view name = reader.name("the name of a step kernel");
        reader.next_line();
        ir.steps.push_back(read_step(reader, name, line));
    } else {
        const KernelRole role = read_role(reader);
        reader.next_line();
        ir.programs.push_back(read_tile_program(reader, role, line, ir.pattern, completeness));
    }
}

}  // namespace

IrModule parse_ir(std::string_view text, std::string_view origin, Completeness completeness) {
    TextReader reader(text, origin);
    IrModule ir;
    while (reader.has_line()) {
        if (!ir.attention && !ir.pattern && !ir.has_programs() && reader.at_word("attention")) {
            ir.attention = read_attention(reader);
        } else if (!ir.pattern && !ir.has_programs() && reader.at_word("pattern")) {
            const int line = reader.line();
            ir.pattern = read_patterns(reader);
            if (ir.attention && !fits(*ir.pattern, *ir.attention)) {
                reader.fail_at_line(
                    line,
                    ir.pattern->count() != ir.attention->pattern_count()
                        ? fmt::format("there are {} patterns, and the attention has {}",
                                      ir.pattern->count(), ir.attention->pattern_count())
                        : fmt::format("the pattern has {}, the attention {}",
                                      lengths_text(ir.pattern->length(), ir.pattern->key_length()),
                                      lengths_text(ir.attention->length,
                                                   ir.attention->key_value_length())));
            }
        } else if (reader.at_word("program")) {
            read_program(reader, ir, completeness);
        } else {
            reader.fail_here(
                "expected an attention line, then a pattern section, then programs, each of them "
                "optional");
        }
    }
    if (!ir.attention && !ir.pattern && !ir.has_programs()) {
        reader.fail_here("expected 'attention', 'pattern' or 'program', found the end of the text");
    }
    return ir;
}

std::string to_text(const IrModule& ir) {
    std::string text;
    if (ir.attention) {
        text += to_text(*ir.attention) + "\n";
    }
    const bool has_patterns = ir.pattern.has_value();
    for (int p = 0; has_patterns && p < ir.pattern->count(); ++p) {
        const BlockPattern& pattern = (*ir.pattern)[p];
        text += fmt::format("pattern L={} block={}", pattern.length(), pattern.block());
        if (pattern.key_length() != pattern.length()) {
            text += fmt::format(" kv_length={}", pattern.key_length());
        }
        text += '\n';
        text += pattern.to_bits();
    }
    for (const TileProgram& program : ir.programs) {
        text += to_text(program);
    }
    for (const ScoreSummaryProgram& program : ir.summaries) {
        text += to_text(program);
    }
    for (const StepProgram& program : ir.steps) {
        text += to_text(program);
    }
    return text;
}

}  // namespace spion
