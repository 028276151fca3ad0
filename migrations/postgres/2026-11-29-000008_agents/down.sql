DROP TABLE join_tokens;
DROP TABLE enrolled_agents;
DROP TABLE authorities;
