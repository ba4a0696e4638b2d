// The kind and the text of an error, both of which users and their scripts rely on.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <typeinfo>

namespace spion {

// Runs `action`, which must throw exactly an Error whose message contains `text`.
template <typename Error, typename Action>
void expect_error(Action&& action, const std::string& text) {
    try {
        action();
        ADD_FAILURE() << "nothing was thrown; expected: " << text;
    } catch (const std::exception& error) {
        EXPECT_EQ(typeid(error), typeid(Error)) << error.what();
        EXPECT_NE(std::string(error.what()).find(text), std::string::npos)
            << "message: " << error.what() << "\nexpected in it: " << text;
    }
}

}  // namespace spion
