// The kind, the status and the text of an error that came over the library's border.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <typeinfo>

#include "spion/spion.h"

namespace spion::test {

template <typename Kind, typename Action>
void expect_status(const Action& action, const std::string& words) {
    try {
        action();
        ADD_FAILURE() << "nothing was thrown; expected: " << words;
    } catch (const Error& error) {
        EXPECT_EQ(typeid(error), typeid(Kind)) << error.what();
        EXPECT_NE(error.status(), SPION_OK);
        EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
}

}  // namespace spion::test
