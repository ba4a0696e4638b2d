#!/usr/bin/env python3
"""No file over 400 lines, no function over 60, but for those that are named here.

    tests/sizes_test.py [ROOT]

Reads every source of the tree. That clang-format lays out all C++ is used: a definition ends with the
first "}" at its own indentation. Lines of a function count from its first line to that one.
"""
import ast
import os
import pathlib
import re
import sys

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60

# Tables, and kernels that are unrolled: one piece, whose parts share dozens of registers.
LONG_FUNCTIONS = {
    'kernels/cuda/sm80/attention_forward.cuh': 'attention_forward',
    'kernels/cuda/sm80/attention_query_gradient.cuh': 'attention_query_gradient',
    'kernels/cuda/sm80/attention_key_value_gradient.cuh': 'attention_key_value_gradient',
    'kernels/cuda/sm90/warp_attention_key_value_gradient.cuh': 'add',
    'kernels/cuda/sm90/wgmma_attention_forward.cuh': 'compute',
    'kernels/cuda/sm90/wgmma_attention_gradients.cuh': 'compute',
    'kernels/cuda/sm90/wgmma_attention_query_gradient.cuh': 'compute',
    'kernels/cuda/sm90/wgmma_pipeline.cuh': 'produce',
    'kernels/cuda/train/residual_norm_forward.cuh': 'residual_norm_forward',
    'tests/kernels/emulated_cases.h': 'emulated_cases',
    'tests/runtime/cache_test.cpp': 'damages',
    'tools/inspect/highlight.cpp': 'keywords',
    'train/settings.cpp': 'sparsity_settings',
}
FOLDERS = ('api', 'bench', 'codegen', 'compiler', 'examples', 'findings', 'include', 'io', 'ir', 'kernels',
           'python', 'runtime', 'tests', 'tools', 'train')
CXX = {'.cpp', '.h', '.cuh', '.cu', '.c'}
TYPE = re.compile(r'(template <.*> )?(namespace|struct|class|union|enum|extern "C" \{)\b')


def cxx_functions(lines):
    """(name, first line, lines) of every function of the text, those of classes too."""
    found = []
    head, begin = '', 0
    end = None  # indentation at which the function that is open ends
    for number, line in enumerate(lines, 1):
        text = line.split('//')[0].rstrip()
        indent = len(line) - len(line.lstrip())
        if end is not None:
            if indent == end and text.lstrip().startswith('}'):
                if '(' in head:
                    found.append((name_of(head), begin, number - begin + 1))
                head, end = '', None
            continue
        text = text.strip()
        if not text or text.startswith(('#', '}', '/*', '*', 'public:', 'private:', 'protected:')):
            continue
        if not head:
            begin, first_indent = number, indent
        head = f'{head} {text}'.strip()
        if text.endswith('{'):
            if TYPE.match(head) and not re.search(r'\) (const )?\{$', head):
                head = ''
            else:
                end = first_indent
        elif text.endswith((';', '}', '\\')):
            head = ''
    return found


def name_of(head):
    """Of the function that the head declares: what stands before its parameters."""
    head = re.sub(r'__\w+__\s*(\((?:[^()]|\([^()]*\))*\))?', '', head)
    names = re.findall(r'([\w~]+)\s*\(', head)
    return names[0] if names else head


def python_functions(text):
    return [(node.name, node.lineno, node.end_lineno - node.lineno + 1) for node in ast.walk(ast.parse(text))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def shell_functions(lines):
    begins = [(number, match[1]) for number, line in enumerate(lines, 1)
              if (match := re.match(r'(\w+)\(\) \{$', line))]
    return [(name, begin, lines[begin:].index('}') + 2) for begin, name in begins]


def sources(root):
    for folder in FOLDERS:
        for path, names, files in os.walk(root / folder):
            names[:] = [name for name in names if name not in ('goldens', '__pycache__', 'build')]
            yield from (pathlib.Path(path) / file for file in files)
    yield root / 'run'


def check(root):
    """(what is wrong, functions read, (file, name) of the long ones that are named above)."""
    wrong, read, named = [], 0, set()
    for file in sources(root):
        shell = file.suffix == '.sh' or file.name == 'run'
        if file.suffix not in CXX | {'.py'} and not shell:
            continue
        text = file.read_text()
        lines = text.splitlines()
        place = file.relative_to(root).as_posix()
        if len(lines) > MOST_LINES_OF_A_FILE:
            wrong.append(f'{place} has {len(lines)} lines, {MOST_LINES_OF_A_FILE} at most: split it by subject')
        functions = (python_functions(text) if file.suffix == '.py' else
                     shell_functions(lines) if shell else cxx_functions(lines))
        read += len(functions)
        for name, begin, count in functions:
            if count <= MOST_LINES_OF_A_FUNCTION:
                continue
            if LONG_FUNCTIONS.get(place) == name:
                named.add((place, name))
            else:
                wrong.append(f'{place}:{begin} {name} has {count} lines, {MOST_LINES_OF_A_FUNCTION} at most: split '
                             'it, or name it in tests/sizes_test.py if it is a table or an unrolled kernel')
    return wrong, read, named


def check_the_readers():
    """The three readers on texts whose functions are known."""
    text = ('namespace a {\nint f(int x,\n      int y) {\n    if (x) {\n        y();\n    }\n    return x;\n}\n'
            'struct S : T {\n    void g() {\n        h();\n    }\n    int v = 0;\n};\n'
            'const Table kTable = {\n    {1},\n};\nint k() { return 1; }\n'
            'extern "C" __global__ void __launch_bounds__(kThreads)\n    body(const A args) {\n    f();\n}\n'
            'template <typename T>\nvoid C::m(T t) const {\n    t();\n}\n}  // namespace a\n')
    assert cxx_functions(text.splitlines()) == [('f', 2, 7), ('g', 10, 3), ('body', 19, 4), ('m', 23, 4)], \
        cxx_functions(text.splitlines())
    assert python_functions('class A:\n    def f(self):\n        pass\n') == [('f', 2, 2)]
    assert shell_functions(['x=1', 'f() {', '    g', '}']) == [('f', 2, 3)]


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
    check_the_readers()
    wrong, read, named = check(root)
    wrong += [f'{place}: {name} is named as long and is not' for place, name in LONG_FUNCTIONS.items()
              if (place, name) not in named]
    if read < 3000:
        wrong.append(f'only {read} functions were found: are they read at all?')
    print('\n'.join(wrong) or f'{read} functions, {len(named)} long ones named')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
