#include "io/sparse.h"

#include <algorithm>
#include <vector>

#include "io/npy.h"
#include "io/printable.h"
#include "ir/error.h"

namespace spion {
namespace {

const ZipMember* find(const Zip& zip, const std::string& name) {
    const std::vector<ZipMember>& members = zip.members();
    const auto found = std::find_if(members.begin(), members.end(), [&](const ZipMember& member) {
        return member.name == name + ".npy";
    });
    return found == members.end() ? nullptr : &*found;
}

// The matrix as scipy keeps it: block row i of R rows has the blocks indptr[i] to indptr[i + 1],
// whose columns are in indices and whose elements, [R, C], in data. CSR is R = C = 1.
struct Matrix {
    std::int64_t edge = 0;
    std::int64_t rows = 1, columns = 1;  // R, C
    std::vector<double> starts, indices;
    Array data;
};

class Reader {
  public:
    Reader(const Zip& zip, const std::string& origin) : zip_(zip), origin_(origin) {}

    Matrix read() const {
        const std::string format = text("format");
        if (format != "csr" && format != "bsr") {
            throw UserError(
                "{}: is a sparse matrix in format {}: save it with .tocsr() or .tobsr()", origin_,
                format);
        }
        const std::vector<double> shape = array("shape").values();
        if (shape.size() != 2 || shape[0] != shape[1]) {
            throw UserError(
                "{}: the sparse matrix is not square: give one with a row and a column "
                "for each block or element",
                origin_);
        }
        Matrix matrix{.edge = static_cast<std::int64_t>(shape[0]),
                      .starts = array("indptr").values(),
                      .indices = array("indices").values(),
                      .data = array("data")};
        if (format == "bsr" && matrix.data.shape.size() == 3) {
            matrix.rows = matrix.data.shape[1];
            matrix.columns = matrix.data.shape[2];
        }
        check(matrix, format == "bsr" ? 3 : 1);
        return matrix;
    }

  private:
    [[noreturn]] void fail(std::string_view what) const {
        throw UserError("{}: the sparse matrix is damaged ({}): save it again", origin_, what);
    }

    void check(const Matrix& matrix, std::size_t axes) const {
        if (matrix.data.shape.size() != axes || matrix.rows < 1 || matrix.columns < 1 ||
            matrix.edge < 1 || matrix.edge % matrix.rows != 0 ||
            matrix.edge % matrix.columns != 0) {
            fail("its data has another shape than its format needs");
        }
        const auto blocks = static_cast<double>(matrix.indices.size());
        if (static_cast<std::int64_t>(matrix.starts.size()) != matrix.edge / matrix.rows + 1 ||
            matrix.starts.front() != 0 || matrix.starts.back() != blocks ||
            !std::is_sorted(matrix.starts.begin(), matrix.starts.end()) ||
            matrix.data.shape.front() != static_cast<std::int64_t>(matrix.indices.size())) {
            fail("indptr, indices and data do not fit together");
        }
        const auto last = static_cast<double>(matrix.edge / matrix.columns);
        if (!std::all_of(matrix.indices.begin(), matrix.indices.end(),
                         [last](double index) { return index >= 0 && index < last; })) {
            fail("a column lies outside");
        }
    }

    Bytes member(const std::string& name) const {
        const ZipMember* found = find(zip_, name);
        if (found == nullptr) {
            fail("it has no " + name);
        }
        return zip_.read(*found);
    }
    Array array(const std::string& name) const {
        return parse_npy(member(name), origin_ + ":" + name);
    }
    // A scalar of bytes, such as |S3.
    std::string text(const std::string& name) const {
        const Bytes bytes = member(name);
        const NpyHeader header = read_npy_header(bytes.view, origin_ + ":" + name);
        constexpr std::size_t kLongest = 8;
        if (!header.descr.starts_with("|S") || !header.shape.empty()) {
            fail(name + " is no text");
        }
        return std::string(header.elements.substr(0, kLongest));
    }

    const Zip& zip_;
    const std::string& origin_;
};

}  // namespace

bool is_sparse_matrix(const Zip& zip) {
    return find(zip, "format") != nullptr && find(zip, "shape") != nullptr;
}

FoundPattern parse_sparse_matrix(const Zip& zip, const PatternRequest& request,
                                 const std::string& origin) {
    const Matrix matrix = Reader(zip, origin).read();
    const MaskGrid grid = mask_grid(matrix.edge, request, origin);
    return pattern_of_mask(grid, [&](const SetCell& set) {
        std::vector<double> block(static_cast<std::size_t>(matrix.rows * matrix.columns));
        for (std::size_t i = 0; i + 1 < matrix.starts.size(); ++i) {
            const auto end = static_cast<std::int64_t>(matrix.starts[i + 1]);
            for (auto at = static_cast<std::int64_t>(matrix.starts[i]); at < end; ++at) {
                matrix.data.read(at * matrix.rows * matrix.columns, block);
                const auto column =
                    static_cast<std::int64_t>(matrix.indices[static_cast<std::size_t>(at)]);
                for (std::int64_t cell = 0; cell < matrix.rows * matrix.columns; ++cell) {
                    if (block[static_cast<std::size_t>(cell)] != 0) {
                        set(static_cast<std::int64_t>(i) * matrix.rows + cell / matrix.columns,
                            column * matrix.columns + cell % matrix.columns);
                    }
                }
            }
        }
    });
}

}  // namespace spion
