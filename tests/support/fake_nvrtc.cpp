// A libnvrtc.so that does as the environment says, to see what becomes of its answers:
//   FAKE_NVRTC_RELEASE  "12.2"; unset: 13.5
//   FAKE_NVRTC_RESULT   of every compilation, as a number; unset: 6, a rejected source
//   FAKE_NVRTC_LOG      of every compilation; unset: an error in line 7
// It knows compute capabilities 8.0 and 9.0.
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr char kCubin[] = "\177ELF, as far as anybody looks";
constexpr char kPtx[] = ".target sm_90a";

const char* setting(const char* name, const char* otherwise) {
    const char* value = std::getenv(name);
    return value == nullptr ? otherwise : value;
}

const char* log_text() {
    return setting("FAKE_NVRTC_LOG", "kernel.cu(7): error: this compiler likes nothing");
}

}  // namespace

extern "C" {
const char* nvrtcGetErrorString(int result) {
    return result == 6   ? "NVRTC_ERROR_COMPILATION"
           : result == 7 ? "NVRTC_ERROR_BUILTIN_OPERATION_FAILURE"
                         : "NVRTC_ERROR_INTERNAL_ERROR";
}
int nvrtcVersion(int* major, int* minor) {
    return std::sscanf(setting("FAKE_NVRTC_RELEASE", "13.5"), "%d.%d", major, minor) == 2 ? 0 : 1;
}
int nvrtcGetNumSupportedArchs(int* count) {
    *count = 2;
    return 0;
}
int nvrtcGetSupportedArchs(int* capabilities) {
    capabilities[0] = 80;
    capabilities[1] = 90;
    return 0;
}
int nvrtcCreateProgram(void** program, const char*, const char*, int, const char* const*,
                       const char* const*) {
    *program = nullptr;
    return 0;
}
int nvrtcDestroyProgram(void**) {
    return 0;
}
int nvrtcCompileProgram(void*, int, const char* const*) {
    return std::atoi(setting("FAKE_NVRTC_RESULT", "6"));
}
int nvrtcGetProgramLogSize(void*, std::size_t* size) {
    *size = std::strlen(log_text()) + 1;
    return 0;
}
int nvrtcGetProgramLog(void*, char* log) {
    std::strcpy(log, log_text());
    return 0;
}
int nvrtcGetCUBINSize(void*, std::size_t* size) {
    *size = sizeof(kCubin);
    return 0;
}
int nvrtcGetCUBIN(void*, char* code) {
    std::memcpy(code, kCubin, sizeof(kCubin));
    return 0;
}
int nvrtcGetPTXSize(void*, std::size_t* size) {
    *size = sizeof(kPtx);
    return 0;
}
int nvrtcGetPTX(void*, char* text) {
    std::memcpy(text, kPtx, sizeof(kPtx));
    return 0;
}
}
