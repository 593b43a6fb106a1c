include $(sort $(wildcard $(BR2_EXTERNAL_CULVERT_PATH)/package/*/*.mk))
