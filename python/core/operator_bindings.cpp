// Operator, as Python sees it.
#include <nanobind/nanobind.h>

#include <cstdint>

#include "python/core/bindings.h"
#include "python/core/operator.h"

namespace spion::python {
namespace {

// The arguments are those of the operators, in the order of their schemas.
using H = nb::handle;
using Text = const char*;
auto maybe() {
    return nb::arg().none();
}

void bind_plain(nb::class_<Operator>& operators) {
    operators
        .def(
            "add",
            [](Operator& self, const nb::object& plan, H q, H k, H v, H tables, H lengths, H spans,
               std::int64_t block, double scale, Text softmax, bool causal) {
                self.add(plan, q, k, v, {tables, lengths, spans}, {block, scale, softmax, causal},
                         nullptr);
            },
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), maybe(), maybe(), nb::arg(),
            nb::arg(), nb::arg(), nb::arg())
        .def(
            "forward",
            [](Operator& self, H q, H k, H v, H tables, H lengths, std::int64_t block, double scale,
               Text softmax, bool causal, H spans) {
                return self.forward(q, k, v, {tables, lengths, spans},
                                    {block, scale, softmax, causal}, nullptr);
            },
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), maybe(), nb::arg(), nb::arg(), nb::arg(),
            nb::arg(), maybe())
        .def(
            "backward",
            [](Operator& self, H d_o, H q, H k, H v, H o, H lse, H tables, H lengths,
               std::int64_t block, double scale, Text softmax, bool causal, H spans) {
                return self.backward(d_o, q, k, v, o, lse, {tables, lengths, spans},
                                     {block, scale, softmax, causal}, nullptr);
            },
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), maybe(),
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), maybe());
}

void bind_general(nb::class_<Operator>& operators) {
    operators
        .def(
            "add_general",
            [](Operator& self, const nb::object& plan, H q, H k, H v, H tables, H lengths, H spans,
               std::int64_t block, double scale, Text softmax, bool causal, double softcap,
               double dropout, std::int64_t patterns, H slopes, H sinks, H bias, Text score,
               Text derivative) {
                const Changes changes{softcap, dropout, patterns, Py_None, slopes,    sinks,
                                      Py_None, bias,    Py_None,  score,   derivative};
                self.add(plan, q, k, v, {tables, lengths, spans}, {block, scale, softmax, causal},
                         &changes);
            },
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), maybe(), maybe(), nb::arg(),
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), maybe(), maybe(),
            maybe(), nb::arg(), nb::arg())
        .def(
            "forward_general",
            [](Operator& self, H q, H k, H v, H tables, H lengths, std::int64_t block, double scale,
               Text softmax, bool causal, H spans, double softcap, double dropout,
               std::int64_t patterns, H state, H slopes, H sinks, H bias, Text score,
               Text derivative) {
                const Changes changes{softcap, dropout, patterns, state, slopes,    sinks,
                                      Py_None, bias,    Py_None,  score, derivative};
                return self.forward(q, k, v, {tables, lengths, spans},
                                    {block, scale, softmax, causal}, &changes);
            },
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), maybe(), nb::arg(), nb::arg(), nb::arg(),
            nb::arg(), maybe(), nb::arg(), nb::arg(), nb::arg(), maybe(), maybe(), maybe(), maybe(),
            nb::arg(), nb::arg())
        .def(
            "backward_general",
            [](Operator& self, H d_o, H q, H k, H v, H o, H lse, H tables, H lengths,
               std::int64_t block, double scale, Text softmax, bool causal, H spans, double softcap,
               double dropout, std::int64_t patterns, H state, H slopes, H sinks, H bias,
               Text score, Text derivative, H d_sinks, H d_bias) {
                const Changes changes{softcap, dropout, patterns, state, slopes,    sinks,
                                      d_sinks, bias,    d_bias,   score, derivative};
                return self.backward(d_o, q, k, v, o, lse, {tables, lengths, spans},
                                     {block, scale, softmax, causal}, &changes);
            },
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), maybe(),
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), maybe(), nb::arg(), nb::arg(), nb::arg(),
            maybe(), maybe(), maybe(), maybe(), nb::arg(), nb::arg(), maybe(), maybe());
}

// An expression of scores and nothing else.
Changes expressed(Text score, Text derivative) {
    return {.softcap = 0,
            .dropout = 0,
            .patterns = 1,
            .state = Py_None,
            .slopes = Py_None,
            .sinks = Py_None,
            .score = score,
            .score_derivative = derivative};
}

bool is_expressed(const Changes& changes) {
    return *changes.score != '\0' || *changes.score_derivative != '\0';
}

void bind_packed(nb::class_<Operator>& operators) {
    operators
        .def(
            "forward_packed",
            [](Operator& self, H qkv, std::int64_t heads, H tables, H lengths, std::int64_t block,
               double scale, Text softmax, bool causal, H spans, Text score, Text derivative) {
                const Changes changes = expressed(score, derivative);
                return self.forward_packed(qkv, heads, {tables, lengths, spans},
                                           {block, scale, softmax, causal},
                                           is_expressed(changes) ? &changes : nullptr);
            },
            nb::arg(), nb::arg(), nb::arg(), maybe(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
            maybe(), nb::arg(), nb::arg())
        .def(
            "backward_packed",
            [](Operator& self, H d_o, H qkv, H o, H lse, std::int64_t heads, H tables, H lengths,
               std::int64_t block, double scale, Text softmax, bool causal, H spans, Text score,
               Text derivative) {
                const Changes changes = expressed(score, derivative);
                return self.backward_packed(d_o, qkv, o, lse, heads, {tables, lengths, spans},
                                            {block, scale, softmax, causal},
                                            is_expressed(changes) ? &changes : nullptr);
            },
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), maybe(), nb::arg(),
            nb::arg(), nb::arg(), nb::arg(), maybe(), nb::arg(), nb::arg());
}

}  // namespace

void bind_operator(nb::module_& module) {
    nb::class_<Operator> operators(module, "Operator");
    operators.def(nb::init<nb::handle>());
    bind_plain(operators);
    bind_general(operators);
    bind_packed(operators);
}

}  // namespace spion::python
